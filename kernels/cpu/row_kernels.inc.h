#pragma once

// Bodies of RowKernels, for row_kernels_<isa>.cc alone. In an anonymous namespace, since the linker
// must not merge the versions.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/row_kernels.h"

namespace mobius {
namespace {

inline constexpr std::int64_t kLanes = 16;
inline constexpr float kInfinity = __builtin_inff();
inline constexpr float kGreatest = 3.402823466e+38F;

inline float widen(std::uint16_t bits) {
  const std::uint32_t wide = std::uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

inline std::uint16_t round_bf16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t rounded = (bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16;
  const std::uint32_t quiet_nan = bits >> 16 | 0x40U;
  return static_cast<std::uint16_t>((bits & 0x7FFFFFFFU) > 0x7F800000U ? quiet_nan : rounded);
}

/// exp(x), x clamped to [-87, 88]: 2^n * e^r with r in [-ln 2 / 2, ln 2 / 2] and the polynomial of
/// Cephes' expf; relative error under 2e-7. Branchless, for the vectoriser.
inline float exp_clamped(float x) {
  x = x > -87.0F ? x : -87.0F;
  x = x < 88.0F ? x : 88.0F;
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const float shifted = x * 1.44269504F + 12582912.0F;
  const float n = shifted - 12582912.0F;
  const float r = (x - n * 0.693359375F) - n * -2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;
  std::uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127U) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

inline float sum_of_lanes(const float* lanes) {
  float pairs[kLanes / 2];
  for (int i = 0; i < 8; ++i) pairs[i] = lanes[i] + lanes[i + 8];
  for (int i = 0; i < 4; ++i) pairs[i] += pairs[i + 4];
  return (pairs[0] + pairs[2]) + (pairs[1] + pairs[3]);
}

inline void bf16_to_f32(float* __restrict out, const std::uint16_t* __restrict in, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = widen(in[i]);
}

inline void f32_to_bf16(std::uint16_t* __restrict out, const float* __restrict in, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = round_bf16(in[i]);
}

inline void rms_norm(float* out, std::uint16_t* out_bf16, const float* in, const float* weight,
                     const std::uint16_t* weight_bf16, std::int64_t n, float eps) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] += in[i + l] * in[i + l];
  }
  for (int l = 0; i + l < n; ++l) lanes[l] += in[i + l] * in[i + l];
  const float scale = 1.0F / std::sqrt(sum_of_lanes(lanes) / static_cast<float>(n) + eps);
  const auto write = [&](const auto& weight_at, const auto& store) {
    for (std::int64_t j = 0; j < n; ++j) store(j, in[j] * scale * weight_at(j));
  };
  const auto with_weight = [&](const auto& store) {
    if (weight != nullptr) {
      write([&](std::int64_t j) { return weight[j]; }, store);
    } else {
      write([&](std::int64_t j) { return widen(weight_bf16[j]); }, store);
    }
  };
  if (out != nullptr) {
    with_weight([&](std::int64_t j, float value) { out[j] = value; });
  } else {
    with_weight([&](std::int64_t j, float value) { out_bf16[j] = round_bf16(value); });
  }
}

inline void silu_mul(float* out, std::uint16_t* out_bf16, const float* gate, const float* up,
                     std::int64_t n) {
  const auto at = [&](std::int64_t i) { return gate[i] / (1.0F + exp_clamped(-gate[i])) * up[i]; };
  if (out != nullptr) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = at(i);
  } else {
    for (std::int64_t i = 0; i < n; ++i) out_bf16[i] = round_bf16(at(i));
  }
}

inline float clean_and_max(float* values, std::int64_t n) {
  const auto clean = [](float x) {
    x = x < kGreatest ? x : (x != x ? -kInfinity : kGreatest);
    return x;
  };
  float lanes[kLanes];
  for (float& lane : lanes) lane = -kInfinity;
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float x = clean(values[i + l]);
      values[i + l] = x;
      lanes[l] = lanes[l] < x ? x : lanes[l];
    }
  }
  for (int l = 0; i + l < n; ++l) {
    const float x = clean(values[i + l]);
    values[i + l] = x;
    lanes[l] = lanes[l] < x ? x : lanes[l];
  }
  float highest = -kInfinity;
  for (const float lane : lanes) highest = highest < lane ? lane : highest;
  return highest;
}

inline double sum_exp(const float* values, std::int64_t n, float highest, float scale) {
  double sum = 0;
  for (std::int64_t start = 0; start < n; start += 16 * kLanes) {
    const std::int64_t count = n - start < 16 * kLanes ? n - start : 16 * kLanes;
    const float* chunk = values + start;
    float lanes[kLanes] = {};
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      for (int l = 0; l < kLanes; ++l) lanes[l] += exp_clamped((chunk[i + l] - highest) * scale);
    }
    for (int l = 0; i + l < count; ++l) lanes[l] += exp_clamped((chunk[i + l] - highest) * scale);
    sum += static_cast<double>(sum_of_lanes(lanes));
  }
  return sum;
}

inline constexpr RowKernels kRowKernels = {bf16_to_f32, f32_to_bf16,   rms_norm,
                                           silu_mul,    clean_and_max, sum_exp};

}  // namespace
}  // namespace mobius
