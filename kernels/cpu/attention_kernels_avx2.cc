#include "kernels/cpu/attention_kernels.inc.h"

namespace mobius {

extern const AttentionKernels attention_kernels_bf16_avx2;
extern const AttentionKernels attention_kernels_f32_avx2;
const AttentionKernels attention_kernels_bf16_avx2 = kernels_of<Bf16Cells>();
const AttentionKernels attention_kernels_f32_avx2 = kernels_of<F32Cells>();

}  // namespace mobius
