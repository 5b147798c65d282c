#include "kernels/cuda/told_blocks.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>

namespace mobius {
namespace {

std::int32_t last_position(const SequenceSlice& slice) {
  return slice.first_position + slice.num_rows - 1;
}

/// Whether the slice's last row leaves some block out, and chooses besides its own.
bool chooses(const SequenceSlice& slice) {
  return slice.policy.top_k > 1 && last_position(slice) / slice.policy.block >= slice.policy.top_k;
}

}  // namespace

void ToldBlocks::check(const StepView& step) const {
  std::int64_t numbers = 0;
  for (const SequenceSlice& slice : step.slices) {
    if (slice.attended.empty()) continue;
    const std::int64_t lists = std::int64_t{kv_.num_layers} * heads_;
    if (slice.policy.mode != AttentionMode::moba ||
        std::ssize(slice.attended) != lists * attended_blocks(slice.policy, last_position(slice))) {
      throw std::invalid_argument("step: the place for attended blocks does not fit");
    }
    numbers += std::ssize(slice.attended);
  }
  if (numbers > std::numeric_limits<std::int32_t>::max()) {
    throw std::invalid_argument("step: too many attended blocks are asked for");
  }
}

void ToldBlocks::begin(const StepView& step, std::span<std::int32_t> at) {
  slices_.clear();
  std::int32_t end = 0;
  for (std::size_t s = 0; s < step.slices.size(); ++s) {
    const SequenceSlice& slice = step.slices[s];
    at[s] = -1;
    if (slice.attended.empty()) continue;
    const std::int32_t full = std::min(slice.full_attention_last_layers, kv_.num_layers);
    Asked asked{.attended = slice.attended,
                .own = last_position(slice) / slice.policy.block,
                .lists = (kv_.num_layers - full) * heads_,
                .count = attended_blocks(slice.policy, last_position(slice))};
    if (asked.lists > 0 && chooses(slice)) {
      at[s] = asked.at = end;
      end += kv_.num_layers * heads_ * (asked.count - 1);
    }
    slices_.push_back(asked);
  }
  asked_ = end > 0;
  const std::size_t bytes = static_cast<std::size_t>(end) * sizeof(std::int32_t);
  if (bytes > memory_.bytes()) memory_ = PinnedBuffer(std::max(bytes, 2 * memory_.bytes()));
}

void ToldBlocks::collect() {
  for (const Asked& asked : slices_) {
    const std::int32_t* told = asked.at < 0 ? nullptr : lists() + asked.at;
    auto next = asked.attended.begin();
    for (std::int32_t list = 0; list < asked.lists; ++list) {
      const auto end = next + asked.count;
      if (told != nullptr) {
        std::copy_n(told, asked.count - 1, next);
        told += asked.count - 1;
        std::sort(next, end - 1);
        *(end - 1) = asked.own;
      } else {
        // All blocks in sight, or only its own.
        std::iota(next, end, asked.own + 1 - asked.count);
      }
      next = end;
    }
  }
  slices_.clear();
}

}  // namespace mobius
