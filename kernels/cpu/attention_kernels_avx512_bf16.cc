#include "kernels/cpu/attention_kernels.inc.h"

namespace mobius {

extern const AttentionKernels attention_kernels_bf16_avx512_bf16;
extern const AttentionKernels attention_kernels_f32_avx512_bf16;
const AttentionKernels attention_kernels_bf16_avx512_bf16 = kernels_of<Bf16Cells>();
const AttentionKernels attention_kernels_f32_avx512_bf16 = kernels_of<F32Cells>();

}  // namespace mobius
