#include "server/metrics/histogram.h"

#include <array>
#include <charconv>
#include <cstddef>

namespace mobius {

void Histogram::observe(double seconds) {
  counts_[duration_bucket(seconds)].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(seconds, std::memory_order_relaxed);
}

DurationCounts Histogram::counts() const {
  DurationCounts result;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    result.counts[i] = counts_[i].load(std::memory_order_relaxed);
  }
  result.sum = sum_.load(std::memory_order_relaxed);
  return result;
}

void render_histogram(std::string& out, std::string_view name, std::string_view labels,
                      const DurationCounts& durations) {
  const auto series = [&](std::string_view suffix, std::string_view bound,
                          const std::string& value) {
    out.append(name).append(suffix).append("{").append(labels);
    if (!bound.empty()) out.append(",le=\"").append(bound).append("\"");
    out.append("} ").append(value).append("\n");
  };
  // The total is the sum of what was counted, so that the last bucket always equals it.
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < durations.counts.size(); ++i) {
    total += durations.counts[i];
    series("_bucket", i < kDurationBounds.size() ? prometheus_number(kDurationBounds[i]) : "+Inf",
           std::to_string(total));
  }
  series("_sum", {}, prometheus_number(durations.sum));
  series("_count", {}, std::to_string(total));
}

std::string prometheus_number(double value) {
  std::array<char, 32> text{};
  const auto result = std::to_chars(text.data(), text.data() + text.size(), value);
  return {text.data(), result.ptr};
}

}  // namespace mobius
