#include "models/generate/random_values.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "kernels/bf16.h"

namespace mobius {
namespace {

constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15;

/// SplitMix64's output function (Steele et al., "Fast splittable pseudorandom number generators",
/// 2014).
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

/// Zero mean; the variance is kVariance. An integer, so exact in float.
float draw(std::uint64_t key, std::uint64_t index) {
  const std::uint64_t bits = mix(key + index * kGolden);
  const auto sum = static_cast<std::int32_t>((bits & 0xFFFF) + (bits >> 16 & 0xFFFF) +
                                             (bits >> 32 & 0xFFFF) + (bits >> 48));
  return static_cast<float>(2 * sum - 4 * 0xFFFF);
}
constexpr double kVariance = 4.0 * 4.0 * (65536.0 * 65536.0 - 1.0) / 12.0;

/// Rounds to nearest even. Values are finite and far from the largest half.
std::uint16_t to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
  const float magnitude = std::fabs(value);
  if (magnitude == 0.0F) return sign;
  // In units of the last of eleven bits (of 2^-24 for subnormals).
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  const int unit = std::max(exponent - 11, -24);
  const auto steps = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(magnitude, -unit)));
  // A carry out of the mantissa moves into the exponent by itself.
  return static_cast<std::uint16_t>(sign + (static_cast<std::uint32_t>(unit + 24) << 10) + steps);
}

template <typename T, typename Convert>
void fill(std::span<std::byte> out, std::uint64_t key, std::int64_t first, const ValueSpec& values,
          Convert convert) {
  const auto scale = static_cast<float>(values.stddev / std::sqrt(kVariance));
  const std::size_t count = out.size() / sizeof(T);
  for (std::size_t i = 0; i < count; ++i) {
    // The product of two floats is exact in double: a fused multiply-add changes nothing.
    const double scaled = double{draw(key, static_cast<std::uint64_t>(first) + i)} * double{scale};
    const T value = convert(static_cast<float>(values.mean + scaled));
    std::memcpy(out.data() + i * sizeof(T), &value, sizeof(T));
  }
}

}  // namespace

std::uint64_t tensor_key(std::uint64_t seed, std::string_view tensor_name) {
  std::uint64_t hash = 0xCBF29CE484222325;  // FNV-1a
  for (const char c : tensor_name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  }
  return mix(hash ^ mix(seed + kGolden));
}

void fill_values(std::span<std::byte> out, DType dtype, std::uint64_t key, std::int64_t first,
                 const ValueSpec& values) {
  switch (dtype) {
    case DType::f32:
      fill<float>(out, key, first, values, [](float value) { return value; });
      return;
    case DType::bf16: fill<std::uint16_t>(out, key, first, values, to_bf16); return;
    case DType::f16: fill<std::uint16_t>(out, key, first, values, to_f16); return;
    case DType::e4m3: throw std::invalid_argument("checkpoints are f32, bf16 or f16");
  }
}

}  // namespace mobius
