#include <algorithm>
#include <stdexcept>

#include "kernels/cuda/check.h"
#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/load.cuh"
#include "kernels/fp8.h"

namespace mobius {
namespace {

constexpr int kThreads = 256;
/// Columns whose codes one thread handles.
constexpr int kGroup = 16;

/// One block a row.
template <class From>
__global__ void __launch_bounds__(kThreads)
    quantise_kernel(uint4* codes, float* scales, const From* from, std::int64_t cols) {
  __shared__ float parts[kThreads / 32];
  const From* row = from + std::int64_t{blockIdx.x} * cols;
  float largest = 0;
  bool finite = true;
  for (std::int64_t i = threadIdx.x; i < cols; i += kThreads) {
    const float value = load(row + i);
    finite = finite && isfinite(value);
    largest = fmaxf(largest, fabsf(value));
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, offset));
  }
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = largest;
  finite = __syncthreads_and(finite) != 0;
  for (int i = 0; i < kThreads / 32; ++i) largest = fmaxf(largest, parts[i]);
  const int exponent = finite ? fp8_exponent(largest) : 0;
  if (threadIdx.x == 0) {
    scales[blockIdx.x] = finite ? power_of_two(exponent) : __int_as_float(0x7FC00000);
  }
  const float inverse = power_of_two(-exponent);
  uint4* to = codes + std::int64_t{blockIdx.x} * (cols / kGroup);
  for (std::int64_t group = threadIdx.x; group < cols / kGroup; group += kThreads) {
    std::uint32_t words[4] = {};
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      const float value = finite ? load(row + group * kGroup + fp8_column(i)) : 0.0F;
      words[i / 4] |= std::uint32_t{to_e4m3(value * inverse)} << (i % 4 * 8);
    }
    to[group] = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

/// One block a row.
__global__ void __launch_bounds__(kThreads)
    widen_kernel(uint4* to, const uint4* codes, const float* scales, std::int64_t groups) {
  // Scales are powers of two, so this is exact.
  const std::uint32_t one = __bfloat16_as_ushort(__float2bfloat16_rn(scales[blockIdx.x]));
  const std::uint32_t scale = one << 16 | one;
  const uint4* from = codes + std::int64_t{blockIdx.x} * groups;
  uint4* row = to + std::int64_t{blockIdx.x} * groups * 2;
  for (std::int64_t i = threadIdx.x; i < groups; i += kThreads) {
    const uint4 word = from[i];
    row[2 * i] = make_uint4(
        multiply_bf16x2(widen_even(word.x), scale), multiply_bf16x2(widen_even(word.y), scale),
        multiply_bf16x2(widen_even(word.z), scale), multiply_bf16x2(widen_even(word.w), scale));
    row[2 * i + 1] = make_uint4(
        multiply_bf16x2(widen_odd(word.x), scale), multiply_bf16x2(widen_odd(word.y), scale),
        multiply_bf16x2(widen_odd(word.z), scale), multiply_bf16x2(widen_odd(word.w), scale));
  }
}

void require_groups(std::int64_t cols) {
  if (cols % kGroup != 0) throw std::invalid_argument("fp8: columns are no multiple of 16");
}

template <class From>
void quantise(void* codes, float* scales, const void* from, std::int64_t rows, std::int64_t cols,
              cudaStream_t stream) {
  quantise_kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(
      static_cast<uint4*>(codes), scales, static_cast<const From*>(from), cols);
}

}  // namespace

void launch_quantise(void* codes, float* scales, const void* from, DType from_type,
                     std::int64_t rows, std::int64_t cols, cudaStream_t stream) {
  require_groups(cols);
  if (rows == 0) return;
  switch (from_type) {
    case DType::f32: quantise<float>(codes, scales, from, rows, cols, stream); break;
    case DType::bf16: quantise<__nv_bfloat16>(codes, scales, from, rows, cols, stream); break;
    case DType::f16: quantise<__half>(codes, scales, from, rows, cols, stream); break;
    case DType::e4m3: throw std::invalid_argument("fp8: the values are quantised already");
  }
  MOBIUS_CUDA_LAUNCHED();
}

void launch_widen(void* to, const Fp8Weight& weight, cudaStream_t stream) {
  require_groups(weight.k);
  const std::int64_t groups = weight.k / kGroup;
  const auto threads = static_cast<unsigned>(std::min<std::int64_t>(kThreads, groups));
  widen_kernel<<<static_cast<unsigned>(weight.n), threads, 0, stream>>>(
      static_cast<uint4*>(to), static_cast<const uint4*>(weight.codes), weight.scales, groups);
  MOBIUS_CUDA_LAUNCHED();
}

}  // namespace mobius
