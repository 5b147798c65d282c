#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/device.h"

namespace mobius {

/// Tells which blocks the last rows of a step's slices attend (SequenceSlice::attended). Where a
/// row chooses, kernels write its choice straight to page-locked memory; where it attends all
/// blocks in sight, nobody has to ask. One step at a time.
class ToldBlocks {
 public:
  ToldBlocks(const KvShape& kv, std::int32_t heads) : kv_(kv), heads_(heads) {}

  /// Throws std::invalid_argument where a place for attended blocks does not fit its slice.
  void check(const StepView& step) const;

  /// Starts a step that was checked. at[slices]: where in `lists` a slice's [layers][heads]
  /// [top_k - 1] begin, -1 where kernels have nothing to tell.
  void begin(const StepView& step, std::span<std::int32_t> at);

  /// For kernels; null where nobody asks. It moves only when a step asks for more than any before.
  std::int32_t* lists() const {
    return asked_ ? reinterpret_cast<std::int32_t*>(memory_.data()) : nullptr;
  }

  /// Fills in what was asked for, once the step's kernels are done.
  void collect();

 private:
  struct Asked {
    std::span<std::int32_t> attended;
    std::int32_t own = 0;    ///< the row's own block
    std::int32_t lists = 0;  ///< sparse layers times heads
    std::int32_t count = 0;  ///< blocks of a list
    std::int32_t at = -1;
  };

  KvShape kv_;
  std::int32_t heads_ = 0;
  bool asked_ = false;
  std::vector<Asked> slices_;
  PinnedBuffer memory_;
};

}  // namespace mobius
