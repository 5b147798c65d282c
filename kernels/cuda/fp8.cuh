#pragma once

#include <cstdint>

// e4m3 codes to bf16 in registers.

namespace mobius {

__device__ __forceinline__ std::uint32_t multiply_bf16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t product;
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  return product;
}

/// Bytes 1 and 3 of `codes` as two bf16. The 7 bits below the sign, put where bf16 has the low 4
/// bits of its exponent and the high 3 of its mantissa, are the value times 2^-120, subnormals
/// included. Not for the codes of NaN.
__device__ __forceinline__ std::uint32_t widen_odd(std::uint32_t codes) {
  constexpr std::uint32_t kTwoTo120 = 0x7B807B80U;
  return multiply_bf16x2((codes >> 4 & 0x07F007F0U) | (codes & 0x80008000U), kTwoTo120);
}

/// Bytes 0 and 2.
__device__ __forceinline__ std::uint32_t widen_even(std::uint32_t codes) {
  return widen_odd(codes << 8);
}

/// The scale that a byte of the KV cache stands for, twice: the byte is the exponent of a bf16.
__device__ __forceinline__ std::uint32_t scale_bf16x2(std::uint32_t byte) {
  return byte * 0x00800080U;
}

/// The scale as a float.
__device__ __forceinline__ float scale_f32(std::uint32_t byte) {
  return __uint_as_float(byte << 23);
}

/// Bytes 0 and 1, and 2 and 3, times a scale; exact.
__device__ __forceinline__ void widen_four(std::uint32_t codes, std::uint32_t scale,
                                           std::uint32_t* low, std::uint32_t* high) {
  const std::uint32_t even = multiply_bf16x2(widen_even(codes), scale);
  const std::uint32_t odd = multiply_bf16x2(widen_odd(codes), scale);
  *low = __byte_perm(even, odd, 0x5410);
  *high = __byte_perm(even, odd, 0x7632);
}

}  // namespace mobius
