#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/tensor.h"

namespace mobius {

/// A weight [N, K] of e4m3 codes (kernels/fp8.h) in device memory: element [n, k] is
/// code * scales[n]. K is a multiple of 16. Owns nothing.
///
/// Within each 16 columns of a row, codes lie in the order in which one lane of the tensor cores'
/// product takes them (fp8_column), so that four codes are one word, and two times four bits of
/// arithmetic make bf16 of it.
struct Fp8Weight {
  const void* codes = nullptr;    ///< [N, K], starts at a multiple of 16 bytes
  const float* scales = nullptr;  ///< [N]
  std::int64_t n = 0;
  std::int64_t k = 0;
};

/// The column, of 16, whose code is at `position`.
constexpr int fp8_column(int position) {
  return position / 4 * 2 + position % 4 / 2 + position % 2 * 8;
}

/// Quantises rows of f32, bf16 or f16: codes[rows, cols] and scales[rows]. A row with a value that
/// is not finite gets a scale of NaN. cols is a multiple of 16.
void launch_quantise(void* codes, float* scales, const void* from, DType from_type,
                     std::int64_t rows, std::int64_t cols, cudaStream_t stream);

/// to[N, K] bf16 = the weight's values, exactly. `to` starts at a multiple of 16 bytes.
void launch_widen(void* to, const Fp8Weight& weight, cudaStream_t stream);

}  // namespace mobius
