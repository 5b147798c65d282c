#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace mobius {

/// Upper bounds, in seconds, that durations are counted by: from a decode step of a small model to
/// a prompt of a million tokens.
inline constexpr std::array<double, 22> kDurationBounds = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1,
    2.5,   5,      7.5,   10,   20,    40,   80,  160,  320, 640,  1280};

/// The bucket that a duration is counted in: that of the first bound that is not below it, or the
/// last one, which has no bound.
inline std::size_t duration_bucket(double seconds) {
  const auto bound = std::lower_bound(kDurationBounds.begin(), kDurationBounds.end(), seconds);
  return static_cast<std::size_t>(bound - kDurationBounds.begin());
}

/// Counts of durations by bucket, not cumulative, and their sum. Not thread-safe.
struct DurationCounts {
  std::array<std::uint64_t, kDurationBounds.size() + 1> counts{};
  double sum = 0;  ///< seconds

  void observe(std::chrono::nanoseconds time) {
    const double seconds = std::chrono::duration<double>(time).count();
    ++counts[duration_bucket(seconds)];
    sum += seconds;
  }
};

}  // namespace mobius
