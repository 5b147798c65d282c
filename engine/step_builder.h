#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "models/runner.h"

namespace mobius {

/// Packs planned slices into the arrays that a runner takes. One step: clear, add for each slice,
/// batch. What it hands out borrows from here, from the sequences and from the scheduler's plan.
class StepBuilder {
 public:
  /// No step is larger, so no step allocates here, but for the masks that scored prompts need.
  StepBuilder(std::int32_t max_rows, std::int32_t max_slices, std::int32_t max_logit_rows,
              std::int32_t vocab_size);

  void clear();
  void add(const PlannedSlice& slice, Sequence& sequence);
  StepBatch batch() const { return {{tokens_, slices_, logit_rows_}, samples_}; }

 private:
  /// A mask that allows one token.
  struct OnlyToken {
    std::vector<std::uint32_t> words;
    std::int32_t token = 0;
  };
  std::span<const std::uint32_t> allow_only(std::int32_t token);

  std::int32_t vocab_size_;
  std::vector<OnlyToken> masks_;  // the first used_masks_ are the step's
  std::size_t used_masks_ = 0;
  std::vector<std::int32_t> tokens_;
  std::vector<SequenceSlice> slices_;
  std::vector<std::int32_t> logit_rows_;
  std::vector<SampleRow> samples_;
};

}  // namespace mobius
