#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

namespace mobius {

/// Throw std::runtime_error with the call's text, file and line where a CUDA or cuBLASLt call
/// failed. A device error is sticky: every later call fails too, and the device counts as lost.
void check_cuda(cudaError_t status, const char* call, const char* file, int line);
void check_cublas(cublasStatus_t status, const char* call, const char* file, int line);

}  // namespace mobius

#define MOBIUS_CUDA(call) ::mobius::check_cuda((call), #call, __FILE__, __LINE__)
#define MOBIUS_CUBLAS(call) ::mobius::check_cublas((call), #call, __FILE__, __LINE__)
/// Right after a kernel launch: what the launch itself reported.
#define MOBIUS_CUDA_LAUNCHED() MOBIUS_CUDA(cudaGetLastError())
