#include "kernels/cpu/attention_kernels.inc.h"

namespace mobius {

extern const AttentionKernels attention_kernels_bf16_generic;
extern const AttentionKernels attention_kernels_f32_generic;
const AttentionKernels attention_kernels_bf16_generic = kernels_of<Bf16Cells>();
const AttentionKernels attention_kernels_f32_generic = kernels_of<F32Cells>();

}  // namespace mobius
