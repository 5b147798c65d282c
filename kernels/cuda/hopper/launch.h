#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace mobius::hopper {

/// Launches a kernel whose blocks may settle on the device while the kernel before still runs. The
/// kernel must call wait_previous_kernel() (ptx.cuh) in every thread before it reads or writes
/// anything that an earlier kernel touches.
template <typename... Parameters, typename... Arguments>
cudaError_t launch_overlapped(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                              std::size_t shared_bytes, cudaStream_t stream,
                              Arguments&&... arguments) {
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Arguments&&>(arguments)...);
}

}  // namespace mobius::hopper
