#pragma once

// bfloat16 as it lies in files and caches: the upper half of a float.
//
// Not for files that are compiled for one instruction set (kernels/cpu/*_<isa>.cc and the headers
// they share): a linker keeps one copy of an inline function, and it must run on every processor.

#include <bit>
#include <cstdint>

namespace mobius {

/// Rounds to nearest, ties to even; any NaN becomes the quiet NaN.
inline std::uint16_t to_bf16(float value) {
  if (value != value) return 0x7FC0;
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

inline float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

}  // namespace mobius
