#pragma once

// e4m3, the 8-bit float that weights, keys and values are quantised to (Micikevicius et al., "FP8
// formats for deep learning", 2022): sign, 4 bits of exponent (bias 7), 3 of mantissa; values up to
// 448, subnormals of 2^-9, no infinity.
//
// A quantised weight has one scale a row (an output channel): its value is code * scale. Scales are
// powers of two, so that value is exact in bf16, and a product of such weights has the bits of the
// same product of bf16 weights, wherever the scale is multiplied in. What that costs: a row's
// largest value lies in (224, 448] * scale instead of at 448; measured on normally distributed
// weights, the relative error is 2.65 % instead of 2.64 % (tests/kernels/fp8_test.cc).
//
// The KV cache keeps one scale for each token, KV head and operand, a byte: the biased exponent of
// a float, so that value and scale are exact in bf16 as well.
//
// The same code runs on the host and on the GPU. Not for files that are compiled for one
// instruction set, as bf16.h says.

#include <bit>
#include <cstdint>

namespace mobius {

constexpr float kMostE4m3 = 448.0F;
/// Exponents of scales: what any weight needs, and far enough from the ends of float's range for
/// sums of products to scale exactly.
constexpr int kMostFp8Exponent = 64;

/// The nearest code, ties to even; beyond 448 the code of 448. Not for NaN.
constexpr std::uint8_t to_e4m3(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 24 & 0x80U;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  std::uint32_t code = 0;
  if (magnitude < 0x3C800000U) {  // below 2^-6: to a multiple of 2^-9, as float rounds beside 2^14
    code = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0x1p14F) -
           std::bit_cast<std::uint32_t>(0x1p14F);
  } else {
    const std::uint32_t rounded = magnitude + 0x7FFFFU + (magnitude >> 20 & 1U);
    code = (rounded >> 20) - (120U << 3);
  }
  return static_cast<std::uint8_t>(sign | (code < 0x7EU ? code : 0x7EU));
}

/// The value of a code; the codes 0x7F and 0xFF, NaN in the format, do not occur in weights.
constexpr float from_e4m3(std::uint8_t code) {
  const std::uint32_t magnitude = code & 0x7FU;
  const float value = magnitude < 8U ? static_cast<float>(magnitude) * 0x1p-9F
                                     : std::bit_cast<float>((magnitude << 20) + (120U << 23));
  return (code & 0x80U) != 0 ? -value : value;
}

/// 2^exponent, for exponents of floats that are not subnormal.
constexpr float power_of_two(int exponent) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(127 + exponent) << 23);
}

/// The exponent of the scale of a row whose values are at most `largest` in magnitude: the least
/// for which they stay within 448, from -64 to 64; 0 for a row of zeros.
constexpr int fp8_exponent(float largest) {
  if (largest == 0.0F) return 0;
  const auto bits = std::bit_cast<std::uint32_t>(largest);
  // 448 is 1.75 * 2^8.
  const int exponent = static_cast<int>(bits >> 23) - 127 - 8 + ((bits & 0x7FFFFFU) > 0x600000U);
  if (exponent < -kMostFp8Exponent) return -kMostFp8Exponent;
  return exponent > kMostFp8Exponent ? kMostFp8Exponent : exponent;
}

/// The scale byte of a KV vector whose values are at most `largest` in magnitude: 127 + exponent.
/// 255, which is infinity, where some value is not finite (`largest` is then infinity or NaN): such
/// a vector's codes are all 0, and 0 * infinity is NaN, so that it stays visible, and in its own
/// sequence.
constexpr std::uint8_t kv_scale_byte(float largest) {
  const auto bits = std::bit_cast<std::uint32_t>(largest);
  if ((bits & 0x7F800000U) == 0x7F800000U) return 255;
  return static_cast<std::uint8_t>(127 + fp8_exponent(largest));
}

/// The scale that a byte stands for: the bits of a float's exponent.
constexpr float kv_scale(std::uint8_t byte) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(byte) << 23);
}

/// The code of a value in a vector with this scale.
constexpr std::uint8_t kv_code(float value, std::uint8_t byte) {
  return byte == 255 ? std::uint8_t{0}
                     : to_e4m3(value * power_of_two(127 - static_cast<int>(byte)));
}

}  // namespace mobius
