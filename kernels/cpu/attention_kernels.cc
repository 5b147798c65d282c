#include "kernels/cpu/attention_kernels.h"

namespace mobius {

extern const AttentionKernels attention_kernels_bf16_generic;
extern const AttentionKernels attention_kernels_f32_generic;
#if defined(__x86_64__)
extern const AttentionKernels attention_kernels_bf16_avx2;
extern const AttentionKernels attention_kernels_f32_avx2;
extern const AttentionKernels attention_kernels_bf16_avx512;
extern const AttentionKernels attention_kernels_f32_avx512;
extern const AttentionKernels attention_kernels_bf16_avx512_bf16;
extern const AttentionKernels attention_kernels_f32_avx512_bf16;
#endif

const AttentionKernels& attention_kernels(Isa isa, DType dtype) {
  const bool f32 = dtype == DType::f32;
#if defined(__x86_64__)
  switch (isa) {
    case Isa::generic: break;
    case Isa::avx2: return f32 ? attention_kernels_f32_avx2 : attention_kernels_bf16_avx2;
    case Isa::avx512: return f32 ? attention_kernels_f32_avx512 : attention_kernels_bf16_avx512;
    case Isa::avx512_bf16:
      return f32 ? attention_kernels_f32_avx512_bf16 : attention_kernels_bf16_avx512_bf16;
  }
#else
  static_cast<void>(isa);
#endif
  return f32 ? attention_kernels_f32_generic : attention_kernels_bf16_generic;
}

}  // namespace mobius
