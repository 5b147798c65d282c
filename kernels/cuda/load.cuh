#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

// An element of any type that weights are stored in, as a float.

namespace mobius {

__device__ inline float load(const float* p) {
  return *p;
}
__device__ inline float load(const __nv_bfloat16* p) {
  return __bfloat162float(*p);
}
__device__ inline float load(const __half* p) {
  return __half2float(*p);
}

}  // namespace mobius
