#pragma once

#include <cstddef>

namespace mobius {

/// Bytes of a cache line and of the longest vector: what the CPU backend's arrays are aligned to.
inline constexpr std::size_t kAlignment = 64;

/// The next multiple of kAlignment; `bytes` itself if it is one.
constexpr std::size_t align_up(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace mobius
