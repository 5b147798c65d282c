#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mobius {

/// Counts of durations by upper bound, as Prometheus' histograms have them. Thread-safe; a reader
/// may see a value's count before its sum.
class Histogram {
 public:
  /// Seconds, from a decode step of a small model to a prompt of a million tokens.
  static constexpr std::array<double, 22> kBounds = {
      0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1,
      2.5,   5,      7.5,   10,   20,    40,   80,  160,  320, 640,  1280};

  void observe(double seconds);

  /// Appends the series `name`_bucket, _sum and _count. `labels`: `a="b"`, escaped, not empty.
  void render(std::string& out, std::string_view name, std::string_view labels) const;

 private:
  std::array<std::atomic<std::uint64_t>, kBounds.size() + 1> counts_{};  // not cumulative
  std::atomic<double> sum_ = 0;
};

/// A number as Prometheus reads it: shortest text that gives the same double.
std::string prometheus_number(double value);

}  // namespace mobius
