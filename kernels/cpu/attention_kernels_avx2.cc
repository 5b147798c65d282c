#define MOBIUS_KERNELS_BF16 attention_kernels_bf16_avx2
#define MOBIUS_KERNELS_F32 attention_kernels_f32_avx2
#include "kernels/cpu/attention_kernels.inc.h"
