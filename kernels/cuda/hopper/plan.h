#pragma once

// The kernels that turn slices into work items, on the device. Host declarations.

#include <cuda_runtime_api.h>

#include "kernels/cuda/hopper/moba.h"
#include "kernels/cuda/hopper/work.cuh"

namespace mobius::hopper {

/// One pass: rows [first_row, end_row) and KV heads [first_kv_head, + kv_heads).
struct Pass {
  std::int32_t first_row = 0;
  std::int32_t end_row = 0;
  std::int32_t first_kv_head = 0;
  std::int32_t kv_heads = 0;
  std::int32_t group = 0;  ///< query heads per KV head
  std::int32_t head_dim = 0;
  std::int32_t slots = 0;         ///< partial results per pair of row and head; 0: nothing is gated
  std::int32_t gate_rows = 0;     ///< pairs per gating tile
  std::int32_t block_stride = 0;  ///< blocks per KV head in arrays over all blocks
  std::int32_t num_slices = 0;
  // Where the cache is fp8:
  std::int32_t page_tokens = 0;  ///< else 0
  /// Widened pages lie one slice after the other; else where the cache has them.
  bool side_by_side = false;
};

/// Arrays of a pass in the workspace.
struct PassArrays {
  SlicePlan* plans;  ///< [num_slices]
  PassTotals* totals;
  WorkItem* contiguous;
  WorkItem* listed;
  std::int32_t* counts;      ///< [kv_heads, block_stride] pairs that chose a block
  std::int32_t* list_begin;  ///< [kv_heads, block_stride]
  std::int32_t* item_begin;  ///< [kv_heads, block_stride]
  std::uint32_t* list;       ///< [pairs * (slots - 1)] pair * slots + slot, block after block
  std::int32_t* chosen;      ///< [pairs, slots - 1] index into counts, or -1
  std::int32_t* place;       ///< [pairs, slots - 1] place among those that chose the same
  float* partial_lse;        ///< [pairs, slots]
  std::uint16_t* partial;    ///< [pairs, slots, head_dim]
  std::uint16_t* centroids;  ///< [all kv_heads, block_stride, head_dim]
};

/// Plans of all slices, totals, and the contiguous items (at most max_items).
cudaError_t launch_plan(const Pass& pass, const Slice* slices, const PassArrays& arrays,
                        int max_items, cudaStream_t stream);

/// Centroids of all candidate blocks, side by side; clears the counts. After launch_plan.
cudaError_t launch_centroids(const KvPages& kv, const Pass& pass, const PassArrays& arrays,
                             const std::int32_t* page_table, int table_stride, cudaStream_t stream);

/// Inverse index and listed items, from counts, chosen and place.
cudaError_t launch_index(const Pass& pass, const PassArrays& arrays, int max_gate_tiles,
                         cudaStream_t stream);

/// Makes bf16 of the quantised keys and values that the pass reads, at `kv.widened`:
/// [pages][pass.kv_heads][page_tokens][head_dim], keys in its first half, values in its second.
/// `slice_pages`: as in Rows. After launch_index, where there is one.
cudaError_t launch_widen(const KvPages& kv, const Pass& pass, const PassArrays& arrays,
                         const std::int32_t* page_table, int table_stride, std::int64_t slice_pages,
                         cudaStream_t stream);

/// What the gate chose for slices' last rows, where `told` asks. After the gate.
cudaError_t launch_told(const Pass& pass, const PassArrays& arrays, const Slice* slices,
                        const Told& told, int q_heads, cudaStream_t stream);

/// out = the partial results of each gated pair, merged in the order of slots.
cudaError_t launch_combine(const Pass& pass, const PassArrays& arrays, std::uint16_t* out,
                           int q_heads, int max_gate_tiles, cudaStream_t stream);

}  // namespace mobius::hopper
