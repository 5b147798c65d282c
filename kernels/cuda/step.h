#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/decode_runs.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/hopper/moba.h"
#include "kernels/cuda/told_blocks.h"

namespace mobius {

/// A step as kernels see it: pointers to device memory, filled by one copy (two with pages) before
/// the step's first kernel. R rows, S slices. All values int32. The addresses never change, so that
/// a recorded graph finds the next step's values in the same place.
struct DeviceStep {
  const std::int32_t* tokens = nullptr;      ///< [R]
  const std::int32_t* positions = nullptr;   ///< [R]
  const std::int32_t* row_slice = nullptr;   ///< [R] the slice that a row belongs to
  const std::int32_t* logit_rows = nullptr;  ///< [rows wanted]

  const std::int32_t* first_row = nullptr;         ///< [S]
  const std::int32_t* num_rows = nullptr;          ///< [S]
  const std::int32_t* first_position = nullptr;    ///< [S]
  const std::int32_t* policy_block = nullptr;      ///< [S] MoBA's block, 0: full attention
  const std::int32_t* policy_top_k = nullptr;      ///< [S]
  const std::int32_t* full_last_layers = nullptr;  ///< [S] last layers that are full in any case

  const std::int32_t* pages = nullptr;  ///< [S, max_pages] physical pages in sequence order
  std::int32_t max_pages = 0;

  /// Pages that the step appends to, in order of rows: [num_segments, 4] = slice, first row, rows,
  /// first position.
  const std::int32_t* segments = nullptr;
  /// Attention's work on slices of several rows: [num_tiles, 2] = slice, first query in the slice.
  const std::int32_t* tiles = nullptr;
  /// ... and on slices of one row: their rows [num_single], and [num_single + 1] spans before each.
  const std::int32_t* single_rows = nullptr;
  const std::int32_t* single_spans = nullptr;
  /// Those that are under full attention at some layer, as plan_decode shares them between
  /// decode_blocks blocks.
  const DecodeRun* decode_runs = nullptr;
  const std::int32_t* decode_block_runs = nullptr;  ///< [decode_blocks + 1]
  /// Where to tell what slices' last rows choose (ToldBlocks): null, or lists in page-locked memory
  /// of the host, and [S] where a slice's begin in them.
  std::int32_t* told = nullptr;
  const std::int32_t* told_at = nullptr;
  /// [layers, S] each: slices as kernels/cuda/hopper takes them, with the policy at the layer. In
  /// the first, those of one row have 0 rows; in the second, all but those of one row under MoBA.
  const hopper::Slice* hopper_slices = nullptr;
  const hopper::Slice* hopper_singles = nullptr;
};

/// What the host knows of the same step, and launches follow from.
struct HostStep {
  std::int32_t rows = 0;
  std::int32_t slices = 0;
  std::int32_t logit_rows = 0;
  std::int32_t segments = 0;
  std::int32_t tiles = 0;
  std::int32_t single = 0;
  std::int32_t single_spans = 0;
  std::int32_t top_k = 0;               ///< the greatest of MoBA slices with several rows
  std::int32_t single_top_k = 0;        ///< ... with one row
  std::int32_t single_full_layers = 0;  ///< last layers at which some slice of one row is full
  std::int32_t decode_blocks = 0;       ///< multiprocessors, whatever the step
  std::int64_t moba_blocks = 0;  ///< complete blocks before the last row's own, over such slices
  std::int32_t longest = 0;      ///< tokens of the longest sequence, this step's included
  std::int64_t tile_pages = 0;   ///< pages that hold the sequences of slices with several rows
};

/// Attention works in tiles of kTileWarps warps, each with 16 rows: the query heads of one KV head
/// at consecutive positions.
constexpr std::int32_t kWarpRows = 16;
constexpr std::int32_t kTileWarps = 4;

constexpr std::int32_t warp_queries(std::int32_t gqa) {
  return gqa < kWarpRows ? kWarpRows / gqa : 1;
}

/// Spans into which attention cuts the keys of a one-row slice, so that the whole device works on a
/// single sequence. It follows from the row's position alone.
constexpr std::int32_t kMaxSpans = 128;
constexpr std::int32_t kSpanUnit = 128;

/// Keys of a span for a row that sees `keys` keys.
constexpr std::int32_t span_keys(std::int32_t keys) {
  const std::int32_t units = (keys + kMaxSpans * kSpanUnit - 1) / (kMaxSpans * kSpanUnit);
  return (units < 1 ? 1 : units) * kSpanUnit;
}

constexpr std::int32_t span_count(std::int32_t keys) {
  return (keys + span_keys(keys) - 1) / span_keys(keys);
}

/// Takes a StepView apart and puts it on the device.
class StepUploader {
 public:
  /// For steps within `limits` on pages of `kv`, with `heads` query heads.
  StepUploader(const StepLimits& limits, const KvShape& kv, std::int32_t heads);

  static std::size_t device_bytes(const StepLimits& limits, const KvShape& kv);

  /// Checks the step (std::invalid_argument) and enqueues its copy. The previous step's must be
  /// done.
  void upload(const StepView& step, const CudaStream& stream);

  const HostStep& host() const { return host_; }
  const DeviceStep& device() const { return device_; }
  /// Fills in SequenceSlice::attended where the step asked, once its kernels are done.
  void tell_blocks() { told_.collect(); }

 private:
  /// Addresses within one buffer for steps of up to so many rows: steps of few rows are copied in
  /// a form that is small, and whose addresses a graph may keep.
  struct Layout {
    std::int32_t rows = 0;
    std::size_t tokens = 0, positions = 0, row_slice = 0, logit_rows = 0;
    std::size_t first_row = 0, num_rows = 0, first_position = 0;
    std::size_t policy_block = 0, policy_top_k = 0, full_last_layers = 0;
    std::size_t segments = 0, tiles = 0, single_rows = 0, single_spans = 0, hopper_slices = 0,
                hopper_singles = 0, told_at = 0;
    std::size_t decode_block_runs = 0;
    std::size_t decode_runs = 0;  ///< last: what the step has none of is not copied
    std::size_t end = 0;          ///< all in int32 elements
  };
  static Layout lay_out(std::int32_t rows, const StepLimits& limits, const KvShape& kv);
  void check(const StepView& step) const;
  void fill(const StepView& step, const Layout& layout, std::int32_t* at);
  /// Returns where what is filled in ends.
  std::size_t fill_runs(const Layout& layout, std::int32_t* at);

  StepLimits limits_;
  KvShape kv_;
  std::int32_t tile_queries_ = 0;
  std::int32_t max_pages_ = 0;
  Layout few_;
  Layout many_;
  std::shared_ptr<void> memory_;
  std::shared_ptr<void> pages_;
  PinnedBuffer pinned_;
  PinnedBuffer pinned_pages_;
  std::vector<DecodeRow> decode_rows_;
  ToldBlocks told_;
  HostStep host_;
  DeviceStep device_;
};

}  // namespace mobius
