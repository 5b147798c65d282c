#include <cuda_bf16.h>

#include "kernels/cuda/check.h"
#include "kernels/cuda/matmul_tuning.h"

namespace mobius {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kBlocks = 1056;

__device__ std::uint32_t mixed(std::uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ULL;
  return static_cast<std::uint32_t>(x >> 32);
}

__global__ void random_kernel(__nv_bfloat16* values, std::int64_t count) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    // Four uniform bytes summed: mean 510, variance 4 (256^2 - 1) / 12.
    const std::uint32_t bits = mixed(static_cast<std::uint64_t>(i) + 1);
    const int sum =
        static_cast<int>((bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24));
    values[i] = __float2bfloat16_rn(static_cast<float>(sum - 510) / 147.8F);
  }
}

template <class T>
__global__ void count_kernel(const T* a, const T* b, std::int64_t count, unsigned* differences) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  unsigned found = 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    found += a[i] != b[i] ? 1 : 0;
  }
  if (found > 0) atomicAdd(differences, found);
}

}  // namespace

void launch_random(Tensor matrix, cudaStream_t stream) {
  random_kernel<<<kBlocks, kThreads, 0, stream>>>(static_cast<__nv_bfloat16*>(matrix.data),
                                                  matrix.rows * matrix.cols);
  MOBIUS_CUDA_LAUNCHED();
}

void launch_count_differences(const void* a, const void* b, DType dtype, std::int64_t count,
                              unsigned* differences, cudaStream_t stream) {
  if (size_of(dtype) == 4) {
    count_kernel<<<kBlocks, kThreads, 0, stream>>>(static_cast<const std::uint32_t*>(a),
                                                   static_cast<const std::uint32_t*>(b), count,
                                                   differences);
  } else {
    count_kernel<<<kBlocks, kThreads, 0, stream>>>(static_cast<const std::uint16_t*>(a),
                                                   static_cast<const std::uint16_t*>(b), count,
                                                   differences);
  }
  MOBIUS_CUDA_LAUNCHED();
}

}  // namespace mobius
