#include "kernels/oracle/ops.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace mobius {
namespace {

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

/// The nearest float with `bits` of significand (the hidden one included) whose least normal
/// exponent is `min_exponent`, ties to even.
float round_significand(float value, int bits, int min_exponent, float overflow) {
  if (!std::isfinite(value) || value == 0) return value;
  const int exponent = std::max(std::ilogb(value), min_exponent);
  const double unit = std::ldexp(1.0, exponent - (bits - 1));
  const double rounded = std::nearbyint(double{value} / unit) * unit;
  if (std::abs(rounded) >= double{overflow}) {
    return std::copysign(std::numeric_limits<float>::infinity(), value);
  }
  return static_cast<float>(rounded);
}

}  // namespace

float round_to(DType dtype, float value) {
  switch (dtype) {
    case DType::f32: return value;
    // 2^128 does not fit a float; everything that rounds to it is infinite in float as well.
    case DType::bf16:
      return round_significand(value, 8, -126, std::numeric_limits<float>::infinity());
    case DType::f16: return round_significand(value, 11, -14, 65536.0F);
    // All that would round to 480 or beyond is 448: there is no infinity.
    case DType::e4m3:
      return std::isnan(value)
                 ? value
                 : round_significand(std::clamp(value, -448.0F, 448.0F), 4, -6, 480.0F);
  }
  return value;
}

std::vector<float> oracle_quantise(std::span<const float> vector) {
  std::vector<float> quantised(vector.begin(), vector.end());
  double largest = 0;
  bool finite = true;
  for (const float x : vector) {
    largest = std::max(largest, std::abs(double{x}));
    finite = finite && std::isfinite(x);
  }
  if (!finite) {
    std::fill(quantised.begin(), quantised.end(), std::numeric_limits<float>::quiet_NaN());
    return quantised;
  }
  int exponent = -64;
  while (largest > 0 && exponent < 64 && largest > std::ldexp(448.0, exponent)) ++exponent;
  for (float& x : quantised) {
    const auto scaled = static_cast<float>(std::ldexp(double{x}, -exponent));
    x = static_cast<float>(std::ldexp(double{round_to(DType::e4m3, scaled)}, exponent));
  }
  return quantised;
}

std::vector<double> oracle_rms_norm(std::span<const float> in, std::span<const float> weight,
                                    double eps) {
  const std::size_t cols = weight.size();
  require(cols > 0 && in.size() % cols == 0, "oracle: in must be [rows, cols]");
  std::vector<double> out;
  for (std::size_t start = 0; start < in.size(); start += cols) {
    double squares = 0;
    for (std::size_t i = 0; i < cols; ++i) squares += double{in[start + i]} * double{in[start + i]};
    const double scale = 1 / std::sqrt(squares / static_cast<double>(cols) + eps);
    for (std::size_t i = 0; i < cols; ++i) {
      out.push_back(double{in[start + i]} * scale * double{weight[i]});
    }
  }
  return out;
}

std::vector<double> oracle_matmul(std::span<const float> in, std::span<const float> weight,
                                  std::int64_t rows, std::int64_t n, std::int64_t k) {
  require(static_cast<std::int64_t>(in.size()) == rows * k &&
              static_cast<std::int64_t>(weight.size()) == n * k,
          "oracle: in must be [rows, k] and weight [n, k]");
  std::vector<double> out;
  out.reserve(static_cast<std::size_t>(rows * n));
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < n; ++c) {
      double sum = 0;
      for (std::int64_t i = 0; i < k; ++i) {
        sum += double{in[static_cast<std::size_t>(r * k + i)]} *
               double{weight[static_cast<std::size_t>(c * k + i)]};
      }
      out.push_back(sum);
    }
  }
  return out;
}

std::vector<double> oracle_rope(std::span<const float> in, std::int64_t position,
                                std::span<const float> inverse_frequencies) {
  const std::size_t half = inverse_frequencies.size();
  require(in.size() == 2 * half, "oracle: a head has two values per frequency");
  std::vector<double> out(in.size());
  for (std::size_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) * double{inverse_frequencies[i]};
    const double a = in[i];
    const double b = in[i + half];
    out[i] = a * std::cos(angle) - b * std::sin(angle);
    out[i + half] = b * std::cos(angle) + a * std::sin(angle);
  }
  return out;
}

std::vector<double> oracle_silu_mul(std::span<const float> gate_up, std::int64_t cols) {
  const auto width = static_cast<std::size_t>(cols);
  require(cols > 0 && gate_up.size() % (2 * width) == 0, "oracle: gate_up must be [rows, 2 cols]");
  std::vector<double> out;
  for (std::size_t start = 0; start < gate_up.size(); start += 2 * width) {
    for (std::size_t i = 0; i < width; ++i) {
      const double gate = gate_up[start + i];
      out.push_back(gate / (1 + std::exp(-gate)) * double{gate_up[start + width + i]});
    }
  }
  return out;
}

std::vector<double> oracle_softmax(std::span<const double> scores) {
  std::vector<double> out = oracle_log_softmax(scores);
  for (double& value : out) value = std::exp(value);
  return out;
}

std::vector<double> oracle_log_softmax(std::span<const double> scores) {
  if (scores.empty()) return {};
  const double highest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (const double score : scores) sum += std::exp(score - highest);
  std::vector<double> out;
  for (const double score : scores) out.push_back(score - highest - std::log(sum));
  return out;
}

}  // namespace mobius
