#include "kernels/cuda/hopper/attend.h"
#include "kernels/cuda/hopper/attend_consumer.cuh"
#include "kernels/cuda/hopper/launch.h"

namespace mobius::hopper {

cudaError_t launch_attend_d64(const AttendParams& params, const CUtensorMap& keys,
                              const CUtensorMap& values, int blocks, cudaStream_t stream) {
  constexpr int kBytes = sizeof(AttendShared<64>) + 1024;
  const cudaError_t error =
      cudaFuncSetAttribute(attend_kernel<64>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  return launch_overlapped(attend_kernel<64>, dim3(static_cast<unsigned>(blocks)),
                           dim3(kAttendThreads), kBytes, stream, params, keys, values);
}

}  // namespace mobius::hopper
