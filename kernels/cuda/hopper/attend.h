#pragma once

// Launch of the attention kernel on a pass's work items; attend_d128.cu and attend_d64.cu hold one
// instantiation each, so that they compile beside one another.

#include <cuda.h>
#include <cuda_runtime_api.h>

namespace mobius::hopper {

struct AttendParams;

cudaError_t launch_attend_d128(const AttendParams& params, const CUtensorMap& keys,
                               const CUtensorMap& values, int blocks, cudaStream_t stream);
cudaError_t launch_attend_d64(const AttendParams& params, const CUtensorMap& keys,
                              const CUtensorMap& values, int blocks, cudaStream_t stream);

}  // namespace mobius::hopper
