#include <algorithm>

#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/check.h"

namespace mobius {
namespace {

constexpr int kGateWarps = 4;  ///< of a thread block

/// Ascending like the float; -0 has become +0 before.
__device__ std::uint32_t ordered(float value) {
  const std::uint32_t bits = __float_as_uint(value);
  return bits ^ ((bits & 0x80000000U) != 0 ? 0xffffffffU : 0x80000000U);
}

/// A lane's share of the centroid of block b: dimensions 32 j + 8 c ... + 7, rounded (rule 2).
template <int D>
__device__ void load_centroid(uint4 (&centroid)[D / 32], const AttentionCall& call,
                              const std::int32_t* pages, int kv_head, int block, int b) {
  const int c = static_cast<int>(threadIdx.x) % 4;
  const int count = block / call.page_tokens;
  const std::int32_t* own = pages + std::int64_t{b} * count;
  if (block == call.centroid_block) {
    const std::uint16_t* from =
        call.centroids + (std::int64_t{own[count - 1]} * call.kv_heads + kv_head) * D + 8 * c;
#pragma unroll
    for (int j = 0; j < D / 32; ++j) centroid[j] = *reinterpret_cast<const uint4*>(from + 32 * j);
    return;
  }
#pragma unroll
  for (int j = 0; j < D / 32; ++j) {
    float sum[8] = {};
    for (int i = 0; i < count; ++i) {
      const float* from =
          call.sums + (std::int64_t{own[i]} * call.kv_heads + kv_head) * D + 32 * j + 8 * c;
      for (int d = 0; d < 8; ++d) sum[d] += from[d];
    }
    for (int d = 0; d < 8; ++d) sum[d] = __fdiv_rn(sum[d], static_cast<float>(block));
    centroid[j] = make_uint4(pack_bf16(sum[0], sum[1]), pack_bf16(sum[2], sum[3]),
                             pack_bf16(sum[4], sum[5]), pack_bf16(sum[6], sum[7]));
  }
}

/// Marks the `wanted` highest of scores[count], equal ones from the lowest index on (rule 5). The
/// least score chosen is found bit by bit.
__device__ void select(std::uint32_t* words, const float* scores, int count, int wanted) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  std::uint32_t threshold = 0;
  int quota = wanted;  // of scores equal to the threshold
  if (count > wanted && wanted > 0) {
    for (int bit = 31; bit >= 0; --bit) {
      const std::uint32_t candidate = threshold | 1U << bit;
      int reached = 0;
      for (int i = lane; i < count; i += 32) reached += ordered(scores[i]) >= candidate ? 1 : 0;
      if (__reduce_add_sync(kFullMask, reached) >= wanted) threshold = candidate;
    }
    int greater = 0;
    for (int i = lane; i < count; i += 32) greater += ordered(scores[i]) > threshold ? 1 : 0;
    quota -= __reduce_add_sync(kFullMask, greater);
  }
  for (int first = 0; first < count; first += 32) {
    const bool there = first + lane < count;
    const std::uint32_t key = there ? ordered(scores[first + lane]) : 0;
    std::uint32_t chosen = 0;
    if (wanted > 0) {
      chosen = __ballot_sync(kFullMask, there && (count <= wanted || key > threshold));
      std::uint32_t equal = __ballot_sync(kFullMask, there && count > wanted && key == threshold);
      for (; equal != 0 && quota > 0; --quota) {
        const std::uint32_t lowest = equal & (0U - equal);
        chosen |= lowest;
        equal ^= lowest;
      }
    }
    if (lane == 0) words[first / 32] = chosen;
  }
}

/// One warp scores the rows of a warp's share of an attention tile, or of a one-row slice, against
/// all complete blocks before them, and selects for each row. Warps take such units in turn.
template <int D>
__global__ void __launch_bounds__(kGateWarps * 32)
    gate_kernel(const __grid_constant__ AttentionCall call) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(blockIdx.x) * kGateWarps + static_cast<int>(threadIdx.x) / 32;
  if (warp >= call.workspace.gate_warps) return;
  const int warps = min(static_cast<int>(gridDim.x) * kGateWarps, call.workspace.gate_warps);
  const std::int64_t stride = call.workspace.max_blocks;
  float* scores = call.workspace.scores + warp * kWarpRows * stride;
  const int queries = warp_queries(call.heads / call.kv_heads);
  const int groups = call.tiles * kTileWarps + call.single;
  for (int unit = warp; unit < groups * call.kv_heads; unit += warps) {
    const int kv_head = unit % call.kv_heads;
    const int group = unit / call.kv_heads;
    const bool single = group >= call.tiles * kTileWarps;
    int slice = 0;
    int first_query = 0;
    if (!single) {
      const std::int32_t* tile = call.step.tiles + 2 * (group / kTileWarps);
      slice = tile[0];
      first_query = tile[1] + group % kTileWarps * queries;
    } else {
      slice = call.step.row_slice[call.step.single_rows[group - call.tiles * kTileWarps]];
    }
    const int last_query = min(first_query + queries, call.step.num_rows[slice]) - 1;
    const int block = block_at(call, slice);
    if (block == 0 || first_query > last_query) continue;
    if (single && call.skip_sparse_singles) continue;
    const WarpRow top = warp_row(call, slice, first_query, kv_head, lane / 4);
    const WarpRow bottom = warp_row(call, slice, first_query, kv_head, lane / 4 + 8);
    QueryFragments<D> q;
    q.load(call, top, bottom);
    // Rule 4: blocks before the one of the last row; rows of an earlier block look at fewer.
    const int blocks = (call.step.first_position[slice] + last_query) / block;
    const std::int32_t* pages = call.step.pages + std::int64_t{slice} * call.step.max_pages;
    for (int first = 0; first < blocks; first += 8) {
      uint4 centroid[D / 32] = {};
      if (first + lane / 4 < blocks) {
        load_centroid<D>(centroid, call, pages, kv_head, block, first + lane / 4);
      }
      float s[4] = {};
      q.score(s, centroid);
      const int column = first + 2 * (lane % 4);
      for (int i = 0; i < 4; ++i) {
        if (column + i % 2 < blocks) {
          scores[(lane / 4 + 8 * (i / 2)) * stride + column + i % 2] = s[i] + 0.0F;
        }
      }
    }
    __syncwarp();
    const int wanted = call.step.policy_top_k[slice] - 1;
    for (int r = 0; r < kWarpRows; ++r) {
      const WarpRow row = warp_row(call, slice, first_query, kv_head, r);
      if (row.row < 0) continue;
      select(call.workspace.selection +
                 (row.row * call.heads + row.head) * std::int64_t{call.workspace.selection_words},
             scores + r * stride, row.position / block, wanted);
    }
    __syncwarp();
  }
}

}  // namespace

void launch_gate(const AttentionCall& call, std::int32_t head_dim, cudaStream_t stream) {
  const std::int64_t units = (std::int64_t{call.tiles} * kTileWarps + call.single) * call.kv_heads;
  const std::int64_t warps = std::min<std::int64_t>(units, call.workspace.gate_warps);
  const auto grid = static_cast<unsigned>((warps + kGateWarps - 1) / kGateWarps);
  constexpr unsigned kThreads = kGateWarps * 32;
  switch (head_dim) {
    case 32: gate_kernel<32><<<grid, kThreads, 0, stream>>>(call); break;
    case 64: gate_kernel<64><<<grid, kThreads, 0, stream>>>(call); break;
    default: gate_kernel<128><<<grid, kThreads, 0, stream>>>(call); break;
  }
  MOBIUS_CUDA_LAUNCHED();
}

}  // namespace mobius
