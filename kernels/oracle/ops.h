#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/tensor.h"

namespace mobius {

// Float64 versions of the operations in kernels/backend.h. Matrices are row-major and hold the very
// values that the operation under test reads, i.e. bf16 inputs widened to float. Results are not
// rounded: a test rounds or allows for it. Sizes that do not fit throw std::invalid_argument.

/// The nearest value of `dtype`, ties to even; overflow becomes infinity (448 in e4m3, which has
/// none), NaN stays NaN.
float round_to(DType dtype, float value);

/// A token's key or value of one KV head as a quantised KV cache keeps it (moba.md, "Quantised keys
/// and values"): each value the nearest multiple by an e4m3 of the vector's scale, itself the least
/// power of two, from 2^-64 to 2^64, for which all stay within 448. NaN where one is not finite.
std::vector<float> oracle_quantise(std::span<const float> vector);

/// [rows, cols]: in / sqrt(mean(in^2) + eps) * weight, weight[cols]. rows follows from in.
std::vector<double> oracle_rms_norm(std::span<const float> in, std::span<const float> weight,
                                    double eps);

/// [rows, n] = in[rows, k] * weight[n, k]^T.
std::vector<double> oracle_matmul(std::span<const float> in, std::span<const float> weight,
                                  std::int64_t rows, std::int64_t n, std::int64_t k);

/// Rotates one head, in[2 * inverse_frequencies.size()], by `position`: with angle
/// a = position * inverse_frequencies[i] (exact product of the two, not rounded to fp32), element i
/// becomes x_i cos a - x_{i+D/2} sin a and element i + D/2 becomes x_{i+D/2} cos a + x_i sin a
/// ("rotate_half" of Hugging Face's Llama).
std::vector<double> oracle_rope(std::span<const float> in, std::int64_t position,
                                std::span<const float> inverse_frequencies);

/// gate_up[rows, 2 * cols] -> [rows, cols]: gate / (1 + exp(-gate)) * up, gate being the first
/// cols.
std::vector<double> oracle_silu_mul(std::span<const float> gate_up, std::int64_t cols);

/// Of one row; empty in, empty out.
std::vector<double> oracle_softmax(std::span<const double> scores);
std::vector<double> oracle_log_softmax(std::span<const double> scores);

}  // namespace mobius
