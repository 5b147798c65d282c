#define MOBIUS_KERNELS_BF16 attention_kernels_bf16_generic
#define MOBIUS_KERNELS_F32 attention_kernels_f32_generic
#include "kernels/cpu/attention_kernels.inc.h"
