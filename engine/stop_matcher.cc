#include "engine/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace mobius {

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  patterns_.reserve(stops.size());
  for (const std::string& stop : stops) {
    Pattern pattern{stop, std::vector<std::uint32_t>(stop.size() + 1, 0), 0};
    for (std::size_t length = 2; length <= stop.size(); ++length) {
      std::size_t border = pattern.fallback[length - 1];
      while (border > 0 && stop[border] != stop[length - 1]) border = pattern.fallback[border];
      if (stop[border] == stop[length - 1]) ++border;
      pattern.fallback[length] = static_cast<std::uint32_t>(border);
    }
    patterns_.push_back(std::move(pattern));
  }
}

void StopMatcher::advance(Pattern& pattern, char byte) {
  while (pattern.matched > 0 && pattern.text[pattern.matched] != byte) {
    pattern.matched = pattern.fallback[pattern.matched];
  }
  if (pattern.text[pattern.matched] == byte) ++pattern.matched;
}

std::string StopMatcher::push(std::string_view text) {
  if (stopped()) return {};
  if (patterns_.empty()) return std::string(text);
  std::size_t open = 0;  // bytes at the end that begin some stop string
  for (const char byte : text) {
    held_.push_back(byte);
    open = 0;
    for (Pattern& pattern : patterns_) {
      advance(pattern, byte);
      open = std::max(open, pattern.matched);
      if (pattern.matched == pattern.text.size() &&
          (matched_ == nullptr || matched_->text.size() < pattern.text.size())) {
        matched_ = &pattern;
      }
    }
    if (stopped()) {
      held_.resize(held_.size() - matched_->text.size());
      return std::exchange(held_, {});
    }
  }
  if (text.empty()) return {};
  std::string safe = held_.substr(0, held_.size() - open);
  held_.erase(0, safe.size());
  return safe;
}

std::string StopMatcher::finish() {
  return std::exchange(held_, {});
}

}  // namespace mobius
