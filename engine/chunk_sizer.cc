#include "engine/chunk_sizer.h"

#include <algorithm>

namespace mobius {
namespace {

// A prompt must get on even where a single row takes longer than the target.
constexpr std::int32_t kLeastRows = 16;

}  // namespace

ChunkSizer::ChunkSizer(std::chrono::nanoseconds target, std::int32_t most)
    : target_(target),
      least_(std::min(kLeastRows, most)),
      most_(most),
      rows_(target.count() > 0 ? least_ : most) {}

void ChunkSizer::observe(std::int32_t prompt_rows, std::chrono::nanoseconds time) {
  if (target_.count() <= 0 || prompt_rows < 1) return;
  const double ratio = static_cast<double>(target_.count()) /
                       static_cast<double>(std::max<std::int64_t>(time.count(), 1));
  const auto scaled = static_cast<std::int32_t>(
      std::min(prompt_rows * std::clamp(ratio, 0.5, 1.25) + 0.5, static_cast<double>(most_)));
  // A chunk that had fewer rows than allowed says nothing against more, unless it was too slow.
  rows_ =
      std::clamp(ratio < 1.0 ? std::min(rows_, scaled) : std::max(rows_, scaled), least_, most_);
}

}  // namespace mobius
