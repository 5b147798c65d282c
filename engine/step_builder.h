#pragma once

#include <cstdint>
#include <vector>

#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "models/runner.h"

namespace mobius {

/// Packs planned slices into the arrays that a runner takes. One step: clear, add for each slice,
/// batch. What it hands out borrows from here, from the sequences and from the scheduler's plan.
class StepBuilder {
 public:
  /// No step is larger, so no step allocates here.
  StepBuilder(std::int32_t max_rows, std::int32_t max_slices);

  void clear();
  void add(const PlannedSlice& slice, Sequence& sequence);
  StepBatch batch() const { return {{tokens_, slices_, logit_rows_}, samples_}; }

 private:
  std::vector<std::int32_t> tokens_;
  std::vector<SequenceSlice> slices_;
  std::vector<std::int32_t> logit_rows_;
  std::vector<SampleRow> samples_;
};

}  // namespace mobius
