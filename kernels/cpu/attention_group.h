#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/kv_cache.h"

namespace mobius {

/// Keys whose softmax runs in one go; longer contexts merge such spans by log-sum-exp, in order.
/// Spans start at multiples of it (rounded to whole pages) under full attention and MoBA alike.
inline constexpr std::int32_t kSpanKeys = 4096;

/// Rows of one slice that share a KV head: the query heads of that KV head at consecutive
/// positions, heads of one position side by side.
struct AttentionGroup {
  const SequenceSlice* slice = nullptr;
  std::int32_t kv_head = 0;
  std::int32_t first_query = 0;  ///< in the slice
  std::int32_t queries = 0;
};

/// Sizes that scratch memory follows from.
struct GroupLimits {
  std::int32_t gqa = 0;         ///< query heads per KV head
  std::int32_t max_rows = 0;    ///< rows, i.e. queries times gqa, of a group
  std::int32_t max_blocks = 0;  ///< blocks that a sequence may have
};

/// Scratch of one thread, carved out of the workspace.
struct GroupScratch {
  std::uint32_t* q = nullptr;          ///< [max_rows][steps], packed queries
  SoftmaxState total;                  ///< [max_rows], finished spans
  SoftmaxState span;                   ///< [max_rows], the span in progress
  std::uint32_t* tile_q = nullptr;     ///< [kTileRows][steps], gathered queries
  float* scores = nullptr;             ///< [kTileRows][kTileKeys]
  std::uint32_t* centroids = nullptr;  ///< [max_blocks / kTileKeys][steps][kTileKeys] cells
  float* top_scores = nullptr;         ///< [kTileRows][max_blocks]
  std::int32_t* top_blocks = nullptr;  ///< [kTileRows][max_blocks]
  std::uint64_t* chosen = nullptr;     ///< [max_blocks][words_per_block]: bit r: row r attends it
  std::int32_t* rows = nullptr;        ///< [max_rows]
  /// Quantised keys and values of a segment as cells: [pages][2][cells of a page], keys first.
  std::uint32_t* widened = nullptr;
};

/// Bytes of a GroupScratch, and the scratch at `memory`.
std::size_t group_scratch_bytes(const KvShape& kv, const GroupLimits& limits);
GroupScratch carve_group_scratch(std::byte* memory, const KvShape& kv, const GroupLimits& limits);

/// What every group of one call reads.
struct GroupContext {
  const AttentionKernels* kernels = nullptr;
  const CpuKvPool* kv = nullptr;
  std::int32_t layer = 0;
  std::int32_t gqa = 0;
  const std::byte* q = nullptr;  ///< [R, Q * D] of the KV type
  std::byte* out = nullptr;      ///< same shape
};

/// Rules 3 to 5 of moba.md: sets scratch.chosen for every block that a row of the group attends,
/// the current one included. Returns words_per_block.
std::int32_t choose_blocks(const GroupContext& context, const AttentionGroup& group,
                           const AttentionPolicy& policy, const GroupScratch& scratch);

/// Attention of one group, written to context.out.
void attend_group(const GroupContext& context, const AttentionGroup& group,
                  const AttentionPolicy& policy, const GroupScratch& scratch);

/// Spans that the group's last query sees, its own included.
std::int32_t spans_of(const AttentionGroup& group, const KvShape& shape);

/// The same in two steps, so that threads can share a group with a long context: first the states
/// of spans [first_span, end_span), each to parts[span * rows + row], then their merge in order,
/// written to context.out. Bit for bit what attend_group gives.
void attend_spans(const GroupContext& context, const AttentionGroup& group,
                  const AttentionPolicy& policy, const GroupScratch& scratch,
                  std::int32_t first_span, std::int32_t end_span, SoftmaxState parts);
void merge_spans(const GroupContext& context, const AttentionGroup& group,
                 const GroupScratch& scratch, SoftmaxState parts);

/// Copies the group's queries to scratch.q. Comes before choose_blocks; attend_group does it
/// itself.
void pack_queries(const GroupContext& context, const AttentionGroup& group,
                  const GroupScratch& scratch);

}  // namespace mobius
