#include "server/metrics/histogram.h"

#include <algorithm>
#include <charconv>

namespace mobius {

void Histogram::observe(double seconds) {
  const auto bound = std::lower_bound(kBounds.begin(), kBounds.end(), seconds);
  counts_[static_cast<std::size_t>(bound - kBounds.begin())].fetch_add(1,
                                                                       std::memory_order_relaxed);
  sum_.fetch_add(seconds, std::memory_order_relaxed);
}

void Histogram::render(std::string& out, std::string_view name, std::string_view labels) const {
  const auto series = [&](std::string_view suffix, std::string_view bound,
                          const std::string& value) {
    out.append(name).append(suffix).append("{").append(labels);
    if (!bound.empty()) out.append(",le=\"").append(bound).append("\"");
    out.append("} ").append(value).append("\n");
  };
  // The total is the sum of what was read, so that the last bucket always equals the count.
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    total += counts_[i].load(std::memory_order_relaxed);
    series("_bucket", i < kBounds.size() ? prometheus_number(kBounds[i]) : "+Inf",
           std::to_string(total));
  }
  series("_sum", {}, prometheus_number(sum_.load(std::memory_order_relaxed)));
  series("_count", {}, std::to_string(total));
}

std::string prometheus_number(double value) {
  std::array<char, 32> text{};
  const auto result = std::to_chars(text.data(), text.data() + text.size(), value);
  return {text.data(), result.ptr};
}

}  // namespace mobius
