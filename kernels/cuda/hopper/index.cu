#include "kernels/cuda/hopper/gate_tile.cuh"
#include "kernels/cuda/hopper/launch.h"
#include "kernels/cuda/hopper/ptx.cuh"

namespace mobius::hopper {
namespace {

constexpr int kScanThreads = 1024;

/// Begins of every block's list and items. Each thread sums consecutive entries, twice.
__global__ void __launch_bounds__(kScanThreads)
    scan_kernel(const Pass pass, const PassArrays arrays) {
  __shared__ int2 sums[kScanThreads];
  join_chain();
  const int entries = pass.kv_heads * pass.block_stride;
  const int share = (entries + kScanThreads - 1) / kScanThreads;
  const int t = static_cast<int>(threadIdx.x);
  const int begin = min(t * share, entries);
  const int end = min(begin + share, entries);
  int2 own = make_int2(0, 0);
  for (int i = begin; i < end; ++i) {
    const int count = arrays.counts[i];
    own.x += count;
    own.y += (count + kTileRows - 1) / kTileRows;
  }
  sums[t] = own;
  __syncthreads();
  for (int d = 1; d < kScanThreads; d *= 2) {
    const int2 other = t >= d ? sums[t - d] : make_int2(0, 0);
    __syncthreads();
    sums[t].x += other.x;
    sums[t].y += other.y;
    __syncthreads();
  }
  int2 at = make_int2(sums[t].x - own.x, sums[t].y - own.y);
  for (int i = begin; i < end; ++i) {
    const int count = arrays.counts[i];
    arrays.list_begin[i] = at.x;
    arrays.item_begin[i] = at.y;
    at.x += count;
    at.y += (count + kTileRows - 1) / kTileRows;
  }
  if (t == kScanThreads - 1) arrays.totals->listed_items = at.y;
}

/// One warp per KV head and block: its items.
__global__ void listed_items_kernel(const Pass pass, const PassArrays arrays) {
  join_chain();
  const int entry = static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / 32);
  if (entry >= pass.kv_heads * pass.block_stride) return;
  const int count = arrays.counts[entry];
  if (count == 0) return;
  const int block_index = entry % pass.block_stride;
  const SlicePlan plan = arrays.plans[find_plan(arrays.plans, pass.num_slices, block_index,
                                                [](const SlicePlan& p) { return p.block_begin; })];
  WorkItem item;
  item.destination = Destination::listed;
  item.head = pass.first_kv_head + entry / pass.block_stride;
  item.table_row = plan.item_row;
  item.keys_begin = (block_index - plan.block_begin) * plan.block;
  item.keys_end = item.keys_begin + plan.block;
  item.position = 0;
  const int first = arrays.list_begin[entry];
  WorkItem* items = arrays.listed + arrays.item_begin[entry];
  for (int i = static_cast<int>(threadIdx.x & 31); i * kTileRows < count; i += 32) {
    item.first = first + i * kTileRows;
    item.count = min(kTileRows, count - i * kTileRows);
    items[i] = item;
  }
}

/// One block of threads per gating tile: its pairs' entries in the inverse index.
__global__ void scatter_kernel(const Pass pass, const PassArrays arrays) {
  join_chain();
  GateTile tile;
  if (!find_gate_tile(pass, arrays.plans, *arrays.totals, static_cast<int>(blockIdx.x), tile)) {
    return;
  }
  const int history = pass.slots - 1;
  for (int i = static_cast<int>(threadIdx.x); i < pass.gate_rows * history;
       i += static_cast<int>(blockDim.x)) {
    const int row = i / history;
    const int slot = i % history;
    if (!tile.valid(pass, row)) return;
    const std::uint32_t pair = tile.pair(pass, row);
    const std::int64_t at = static_cast<std::int64_t>(pair) * history + slot;
    const std::int32_t entry = arrays.chosen[at];
    if (entry < 0) continue;
    arrays.list[arrays.list_begin[entry] + arrays.place[at]] =
        pair * static_cast<std::uint32_t>(pass.slots) + static_cast<std::uint32_t>(slot);
  }
}

}  // namespace

cudaError_t launch_index(const Pass& pass, const PassArrays& arrays, int max_gate_tiles,
                         cudaStream_t stream) {
  const auto launch = [&](auto kernel, int blocks, int threads) {
    return launch_overlapped(kernel, dim3(static_cast<unsigned>(blocks)),
                             dim3(static_cast<unsigned>(threads)), 0, stream, pass, arrays);
  };
  const int entries = pass.kv_heads * pass.block_stride;
  cudaError_t error = launch(scan_kernel, 1, kScanThreads);
  if (error == cudaSuccess) error = launch(listed_items_kernel, (entries + 7) / 8, 256);
  if (error == cudaSuccess) error = launch(scatter_kernel, max_gate_tiles * pass.kv_heads, 256);
  return error;
}

}  // namespace mobius::hopper
