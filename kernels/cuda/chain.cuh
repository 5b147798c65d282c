#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#include "kernels/cuda/check.h"
#include "kernels/cuda/hopper/launch.h"
#include "kernels/cuda/hopper/ptx.cuh"

namespace mobius {

/// Whether the small kernels of a step may settle on the device while the kernel before still runs,
/// and let the next one do so: MOBIUS_CUDA_OVERLAP, "on" (as without it) or "off". It changes no
/// result. Throws std::runtime_error on others.
inline bool overlaps_small_kernels() {
  const char* asked = std::getenv("MOBIUS_CUDA_OVERLAP");
  if (asked == nullptr || std::string_view(asked) == "on") return true;
  if (std::string_view(asked) == "off") return false;
  throw std::runtime_error("MOBIUS_CUDA_OVERLAP is \"" + std::string(asked) +
                           "\", must be off or on");
}

/// How a kernel wants a multiprocessor's memory divided between cache and shared memory. A
/// multiprocessor must be idle to divide it anew: kernels that are to overlap with the products
/// (whose rings take nearly all as shared memory) ask for the same. One that has many loads in
/// flight needs the cache for them.
enum class Memory : std::uint8_t { as_products, for_loads };

/// Enqueues a small kernel. It must call hopper::join_chain() in every thread before it touches
/// anything that another kernel of the step writes. Throws where it could not be launched.
template <auto kKernel, Memory kMemory = Memory::as_products, class... Arguments>
void launch_in_chain(dim3 grid, dim3 block, cudaStream_t stream, const Arguments&... arguments) {
  if (!overlaps_small_kernels()) {
    kKernel<<<grid, block, 0, stream>>>(arguments...);
    MOBIUS_CUDA_LAUNCHED();
    return;
  }
  static const cudaError_t prepared =
      cudaFuncSetAttribute(kKernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                           kMemory == Memory::as_products ? cudaSharedmemCarveoutMaxShared
                                                          : cudaSharedmemCarveoutDefault);
  MOBIUS_CUDA(prepared);
  MOBIUS_CUDA(hopper::launch_overlapped(kKernel, grid, block, 0, stream, arguments...));
}

}  // namespace mobius
