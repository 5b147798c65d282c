#pragma once

#include "kernels/cuda/check.h"
#include "kernels/cuda/device.h"

namespace mobius {

/// Times work between two events.
class Timer {
 public:
  Timer() {
    MOBIUS_CUDA(cudaEventCreate(&start_));
    MOBIUS_CUDA(cudaEventCreate(&end_));
  }
  ~Timer() {
    cudaEventDestroy(start_);
    cudaEventDestroy(end_);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  void start(const CudaStream& stream) { MOBIUS_CUDA(cudaEventRecord(start_, stream.get())); }
  /// Of the work enqueued since `start`; waits for it.
  float microseconds(const CudaStream& stream) {
    MOBIUS_CUDA(cudaEventRecord(end_, stream.get()));
    MOBIUS_CUDA(cudaEventSynchronize(end_));
    float milliseconds = 0;
    MOBIUS_CUDA(cudaEventElapsedTime(&milliseconds, start_, end_));
    return milliseconds * 1000.0F;
  }

 private:
  cudaEvent_t start_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

}  // namespace mobius
