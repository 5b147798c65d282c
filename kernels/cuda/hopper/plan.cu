#include "kernels/cuda/hopper/gate_tile.cuh"
#include "kernels/cuda/hopper/launch.h"
#include "kernels/cuda/hopper/plan.h"
#include "kernels/cuda/hopper/ptx.cuh"

namespace mobius::hopper {
namespace {

constexpr int kPlanThreads = 1024;

/// Exclusive prefix sum over the block; returns the total in `total`.
__device__ int block_scan(int value, int& total) {
  __shared__ int warps[32];
  const int lane = static_cast<int>(threadIdx.x & 31);
  const int warp = static_cast<int>(threadIdx.x >> 5);
  int sum = value;
  for (int d = 1; d < 32; d *= 2) {
    const int other = __shfl_up_sync(0xFFFFFFFFu, sum, d);
    if (lane >= d) sum += other;
  }
  __syncthreads();
  if (lane == 31) warps[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    int w = lane < static_cast<int>(blockDim.x >> 5) ? warps[lane] : 0;
    for (int d = 1; d < 32; d *= 2) {
      const int other = __shfl_up_sync(0xFFFFFFFFu, w, d);
      if (lane >= d) w += other;
    }
    warps[lane] = w;
  }
  __syncthreads();
  total = warps[(blockDim.x >> 5) - 1];
  return sum - value + (warp > 0 ? warps[warp - 1] : 0);
}

__global__ void __launch_bounds__(kPlanThreads)
    plan_kernel(const Pass pass, const Slice* slices, SlicePlan* plans, PassTotals* totals) {
  release_next_kernel();
  SlicePlan plan{};
  const int s = static_cast<int>(threadIdx.x);
  int gate_tiles = 0;
  if (s < pass.num_slices) {
    const Slice slice = slices[s];
    const int begin = max(slice.first_row, pass.first_row);
    const int end = min(slice.first_row + slice.num_rows, pass.end_row);
    plan.block = slice.block;
    plan.top_k = slice.block > 0 ? min(slice.top_k, max(pass.slots, 1)) : 1;
    plan.table_row = slice.table_row;
    plan.tile = slice.block % kTileRows == 0 ? kTileRows : kHalfKeys;
    if (end > begin) {
      plan.first_row = begin;
      plan.position_begin = slice.first_position + begin - slice.first_row;
      plan.position_end = slice.first_position + end - slice.first_row;
      const int first_tile = plan.position_begin / plan.tile;
      plan.tiles = (plan.position_end + plan.tile - 1) / plan.tile - first_tile;
      // Rows whose blocks are no more than top_k attend them all: nothing to choose or to merge.
      // Nor is there with top_k = 1, the current block alone.
      const long long chooses = plan.block > 0 && plan.top_k > 1
                                    ? static_cast<long long>(plan.block) * plan.top_k
                                    : 0x7FFFFFFFLL;
      if (chooses >= plan.position_end) {
        plan.output_tiles = plan.tiles;
        plan.gate_position = plan.position_end;
      } else {
        plan.gate_position = max(static_cast<int>(chooses), plan.position_begin);
        plan.output_tiles = plan.gate_position > plan.position_begin
                                ? static_cast<int>(chooses) / plan.tile - first_tile
                                : 0;
        plan.blocks = (plan.position_end - 1) / plan.block;
        const int pairs = (plan.position_end - plan.gate_position) * pass.group;
        gate_tiles = (pairs + pass.gate_rows - 1) / pass.gate_rows;
      }
    }
  }
  int items_total, blocks_total, gate_total;
  plan.item_begin = block_scan(plan.tiles * pass.kv_heads * pass.group, items_total);
  plan.block_begin = block_scan(plan.blocks, blocks_total);
  plan.gate_begin = block_scan(gate_tiles, gate_total);
  if (pass.page_tokens > 0) {
    int pages_total;
    plan.page_begin =
        block_scan((plan.position_end + pass.page_tokens - 1) / pass.page_tokens, pages_total);
  }
  plan.item_row = pass.side_by_side ? plan.page_begin : plan.table_row;
  if (s < pass.num_slices) plans[s] = plan;
  if (s == 0) {
    totals->contiguous_items = items_total;
    totals->listed_items = 0;
    totals->blocks = blocks_total;
    totals->gate_tiles = gate_total;
    totals->next_item = 0;
  }
}

/// Bytes of keys and values that items in flight may share in the L2 cache.
constexpr long long kSharedBytes = 24LL << 20;

__global__ void contiguous_items_kernel(const Pass pass, const SlicePlan* plans,
                                        const PassTotals* totals, WorkItem* items) {
  join_chain();
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= totals->contiguous_items) return;
  const SlicePlan plan =
      plans[find_plan(plans, pass.num_slices, i, [](const SlicePlan& p) { return p.item_begin; })];
  // Long items first, so that the last to finish are short; but heads one section after the other,
  // so that blocks running at a time read the same keys.
  const long long head_bytes = static_cast<long long>(plan.position_end) * pass.head_dim * 4;
  const int section_kv = static_cast<int>(
      min(max(kSharedBytes / head_bytes, 1LL), static_cast<long long>(pass.kv_heads)));
  const int section_heads = section_kv * pass.group;
  const int local = i - plan.item_begin;
  const int section = local / (plan.tiles * section_heads);
  const int within = local - section * plan.tiles * section_heads;
  const int heads = min(section_heads, pass.kv_heads * pass.group - section * section_heads);
  const int order = within / heads;
  const int first_tile = plan.position_begin / plan.tile;
  const int tile =
      first_tile + (order < plan.output_tiles ? plan.output_tiles - 1 - order
                                              : plan.tiles - 1 - (order - plan.output_tiles));
  const int begin = max(plan.position_begin, tile * plan.tile);
  const int end = min(plan.position_end, (tile + 1) * plan.tile);
  const bool output = order < plan.output_tiles;
  const bool whole_history = plan.block == 0 || (output && plan.top_k > 1);

  WorkItem item;
  item.count = end - begin;
  item.destination = output ? Destination::output : Destination::current;
  item.first = plan.first_row + begin - plan.position_begin;
  item.head = pass.first_kv_head * pass.group + section * section_heads + within % heads;
  item.table_row = plan.item_row;
  item.keys_begin = whole_history ? 0 : begin / plan.block * plan.block;
  item.keys_end = end;
  item.position = begin;
  items[i] = item;
}

}  // namespace

cudaError_t launch_plan(const Pass& pass, const Slice* slices, const PassArrays& arrays,
                        int max_items, cudaStream_t stream) {
  plan_kernel<<<1, kPlanThreads, 0, stream>>>(pass, slices, arrays.plans, arrays.totals);
  const int blocks = (max_items + 255) / 256;
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  return launch_overlapped(contiguous_items_kernel, dim3(static_cast<unsigned>(blocks)), dim3(256),
                           0, stream, pass, arrays.plans, arrays.totals, arrays.contiguous);
}

}  // namespace mobius::hopper
