#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mobius {

/// Looks for stop strings in a stream of text, which may be cut anywhere between characters. Text
/// that may be the beginning of a stop string is held back. Of several stop strings the one that
/// is complete first wins, of those that end together the longest: the result does not depend on
/// how the text is cut. Knuth-Morris-Pratt per stop string: O(stop strings) for each byte.
class StopMatcher {
 public:
  /// `stops` are non-empty valid UTF-8, so nothing is ever cut inside a character.
  explicit StopMatcher(const std::vector<std::string>& stops);
  StopMatcher(const StopMatcher&) = delete;
  StopMatcher& operator=(const StopMatcher&) = delete;

  /// Takes more text and returns what is safe to show: it lies before every stop string. Once
  /// `stopped`, nothing more comes.
  std::string push(std::string_view text);

  /// The text held back, at the end of the stream. Empty if stopped.
  std::string finish();

  bool stopped() const { return matched_ != nullptr; }
  /// The stop string that was found; only if stopped().
  const std::string& stop() const { return matched_->text; }

 private:
  struct Pattern {
    std::string text;
    std::vector<std::uint32_t> fallback;  // per length: longest proper border of that prefix
    std::size_t matched = 0;              // length of its prefix that the text so far ends with
  };
  static void advance(Pattern& pattern, char byte);

  std::vector<Pattern> patterns_;
  const Pattern* matched_ = nullptr;
  std::string held_;
};

}  // namespace mobius
