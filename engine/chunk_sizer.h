#pragma once

#include <chrono>
#include <cstdint>

namespace mobius {

/// Chooses how many prompt rows share a step with running answers, so that the answers' tokens come
/// about every `target`. It knows nothing of the model: it looks at what steps took. Deterministic:
/// the same observations give the same sizes.
///
/// A step that took too long makes the next chunk smaller in proportion, by half at most (one
/// hiccup is no trend); one that was fast makes it larger by a quarter at most.
class ChunkSizer {
 public:
  /// Without a target (0), chunks always have `most` rows.
  ChunkSizer(std::chrono::nanoseconds target, std::int32_t most);

  /// Prompt rows for the next step.
  std::int32_t rows() const { return rows_; }

  /// A step with this many prompt rows, and any number of others, took this long.
  void observe(std::int32_t prompt_rows, std::chrono::nanoseconds time);

 private:
  std::chrono::nanoseconds target_;
  std::int32_t least_;
  std::int32_t most_;
  std::int32_t rows_;
};

}  // namespace mobius
