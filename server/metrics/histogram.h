#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "engine/duration_counts.h"

namespace mobius {

/// Counts of durations by upper bound, as Prometheus' histograms have them. Thread-safe; a reader
/// may see a value's count before its sum.
class Histogram {
 public:
  void observe(double seconds);
  DurationCounts counts() const;

 private:
  std::array<std::atomic<std::uint64_t>, kDurationBounds.size() + 1> counts_{};
  std::atomic<double> sum_ = 0;
};

/// Appends the series `name`_bucket, _sum and _count. `labels`: `a="b"`, escaped, not empty.
void render_histogram(std::string& out, std::string_view name, std::string_view labels,
                      const DurationCounts& durations);

/// A number as Prometheus reads it: shortest text that gives the same double.
std::string prometheus_number(double value);

}  // namespace mobius
