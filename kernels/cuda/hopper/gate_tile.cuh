#pragma once

// Which pairs of row and head a gating tile holds; gating, scatter and combine share it.

#include "kernels/cuda/hopper/plan.h"

namespace mobius::hopper {

/// Last element of plans[] whose `begin` is at most `index`.
template <typename Begin>
__device__ __forceinline__ int find_plan(const SlicePlan* plans, int count, int index,
                                         Begin begin) {
  int low = 0;
  int high = count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (begin(plans[middle]) <= index) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

/// The pairs [0, pass.gate_rows) of one tile and KV head: positions in order, the query heads of
/// the KV head side by side.
struct GateTile {
  SlicePlan plan;
  std::int32_t kv_head;  ///< within the pass
  std::int32_t first;    ///< index of pair 0 among the slice's gated pairs of this KV head

  __device__ __forceinline__ int position(const Pass& pass, int i) const {
    return plan.gate_position + (first + i) / pass.group;
  }
  __device__ __forceinline__ bool valid(const Pass& pass, int i) const {
    return position(pass, i) < plan.position_end;
  }
  __device__ __forceinline__ std::int32_t row(const Pass& pass, int i) const {
    return plan.first_row + position(pass, i) - plan.position_begin;
  }
  /// Query head within the pass.
  __device__ __forceinline__ int head(const Pass& pass, int i) const {
    return kv_head * pass.group + (first + i) % pass.group;
  }
  __device__ __forceinline__ std::uint32_t pair(const Pass& pass, int i) const {
    return static_cast<std::uint32_t>(row(pass, i) - pass.first_row) *
               static_cast<std::uint32_t>(pass.kv_heads * pass.group) +
           static_cast<std::uint32_t>(head(pass, i));
  }
};

/// Tile `index` of a grid of pass.kv_heads * gate tiles; longest histories first. False past the
/// end.
__device__ __forceinline__ bool find_gate_tile(const Pass& pass, const SlicePlan* plans,
                                               const PassTotals& totals, int index,
                                               GateTile& tile) {
  if (index >= totals.gate_tiles * pass.kv_heads) return false;
  const int order = totals.gate_tiles - 1 - index / pass.kv_heads;
  tile.kv_head = index % pass.kv_heads;
  const int slice = find_plan(plans, pass.num_slices, order,
                              [](const SlicePlan& plan) { return plan.gate_begin; });
  tile.plan = plans[slice];
  tile.first = (order - tile.plan.gate_begin) * pass.gate_rows;
  return true;
}

}  // namespace mobius::hopper
