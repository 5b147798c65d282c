#pragma once

// Gating: the scores of a tile of pairs against all candidate centroids, 128 at a time on the
// tensor cores, kept only as each row's best so far (lane_list.cuh, top_list.cuh). One warp streams
// centroids through shared memory; each warpgroup owns 64 pairs.

#include "kernels/cuda/hopper/gate.h"
#include "kernels/cuda/hopper/gate_tile.cuh"
#include "kernels/cuda/hopper/lane_list.cuh"
#include "kernels/cuda/hopper/launch.h"
#include "kernels/cuda/hopper/top_list.cuh"
#include "kernels/cuda/hopper/wgmma.cuh"

namespace mobius::hopper {

constexpr int kGateColumns = 128;  ///< centroids per step
constexpr int kGateStages = 3;

template <int kDim, int kGroups, typename Lists>
struct GateShared {
  alignas(1024) std::uint8_t q[kGroups * 64 * kDim * 2];
  alignas(1024) std::uint8_t c[kGateStages][kGateColumns * kDim * 2];
  alignas(16) std::uint8_t stage[kGroups * 4 * Lists::kStageBytes + 16];
  std::uint64_t full[kGateStages], empty[kGateStages];
};

/// Writes what row `r` of this thread chose, and its place among the pairs that chose the same.
template <typename Lists>
__device__ __forceinline__ void write_choice(const GateParams& p, const GateTile& tile,
                                             Lists& lists, int r, int index) {
  int ids[Lists::kHeld];
  int slots[Lists::kHeld];
  lists.collect(r, ids, slots);
  const int history = p.pass.slots - 1;
  const bool valid = tile.valid(p.pass, index);
  const std::int64_t pair = valid ? tile.pair(p.pass, index) : 0;
  const int first = tile.kv_head * p.pass.block_stride + tile.plan.block_begin;
  int held = 0;
  int places[Lists::kHeld];
#pragma unroll
  for (int e = 0; e < Lists::kHeld; ++e) {
    if (valid && ids[e] >= 0) {
      places[e] = atomicAdd(&p.arrays.counts[first + ids[e]], 1);
      ++held;
    }
  }
#pragma unroll
  for (int e = 0; e < Lists::kHeld; ++e) {
    if (valid && ids[e] >= 0) {
      p.arrays.chosen[pair * history + slots[e]] = first + ids[e];
      p.arrays.place[pair * history + slots[e]] = places[e];
    }
  }
  held += __shfl_xor_sync(0xFFFFFFFFu, held, 1);
  held += __shfl_xor_sync(0xFFFFFFFFu, held, 2);
  if (valid) {
    // Only where scores were NaN or this slice's top_k is below the pass's.
    for (int slot = held + static_cast<int>(threadIdx.x & 3); slot < history; slot += 4) {
      p.arrays.chosen[pair * history + slot] = -1;
      p.arrays.partial_lse[pair * p.pass.slots + slot] = -INFINITY;
    }
  }
}

template <int kDim, int kGroups, typename Lists>
__global__ void __launch_bounds__(kGroups * 128 + 32, 1)
    gate_kernel(const __grid_constant__ GateParams p, const __grid_constant__ CUtensorMap map) {
  constexpr int kRows = kGroups * 64;
  extern __shared__ std::uint8_t raw[];
  auto& s = aligned_shared<GateShared<kDim, kGroups, Lists>>(raw);
  join_chain();
  GateTile tile;
  if (!find_gate_tile(p.pass, p.arrays.plans, *p.arrays.totals, static_cast<int>(blockIdx.x),
                      tile)) {
    return;
  }
  if (threadIdx.x == 0) {
    for (int i = 0; i < kGateStages; ++i) {
      barrier_init(&s.full[i], 1);
      barrier_init(&s.empty[i], kGroups * 4);
    }
    barrier_init_fence();
  }
  __syncthreads();
  const int last_position = min(tile.position(p.pass, kRows - 1), tile.plan.position_end - 1);
  const int most = last_position / tile.plan.block;  // candidates of the last row
  const int least = tile.position(p.pass, 0) / tile.plan.block;
  const int steps = (most + kGateColumns - 1) / kGateColumns;
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x & 31);

  if (warp == kGroups * 4) {
    if (lane != 0) return;
    const int first =
        (p.pass.first_kv_head + tile.kv_head) * p.pass.block_stride + tile.plan.block_begin;
    int stage = 0;
    std::uint32_t phase = 0;
    for (int step = 0; step < steps; ++step) {
      barrier_wait(&s.empty[stage], phase ^ 1);
      barrier_expect(&s.full[stage], kGateColumns * kDim * 2);
      for (int half = 0; half < kDim / 64; ++half) {
        tma_load(s.c[stage] + half * kGateColumns * 128, &map, half * 64,
                 first + step * kGateColumns, &s.full[stage]);
      }
      if (++stage == kGateStages) {
        stage = 0;
        phase ^= 1;
      }
    }
    return;
  }

  const int group = warp / 4;
  constexpr int kChunks = kDim / 8;
  for (int i = static_cast<int>(threadIdx.x & 127); i < 64 * kChunks; i += 128) {
    const int row = group * 64 + i / kChunks;
    const int chunk = i % kChunks;
    if (tile.valid(p.pass, row)) {
      const std::int64_t vector = static_cast<std::int64_t>(tile.row(p.pass, row)) * p.q_heads +
                                  p.pass.first_kv_head * p.pass.group + tile.head(p.pass, row);
      copy_async_16(smem_address(s.q) + swizzled(row, chunk, kRows),
                    p.q + vector * kDim + chunk * 8);
    }
  }
  copy_async_commit();
  const int row0 = warp * 16 + lane / 4;
  Lists lists;
  lists.clear(tile.plan.top_k - 1);
  auto* const staging = reinterpret_cast<float4*>(s.stage + warp * Lists::kStageBytes);
  int candidates[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = row0 + 8 * r;
    candidates[r] = tile.valid(p.pass, row) ? tile.position(p.pass, row) / tile.plan.block : 0;
  }
  copy_async_wait<0>();
  fence_async_proxy();
  named_sync(1 + group, 128);

  const std::uint64_t a = descriptor_rows(s.q + group * 64 * 128);
  int stage = 0;
  std::uint32_t phase = 0;
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    float scores[64];
    barrier_wait(&s.full[stage], phase);
    const std::uint64_t b = descriptor_rows(s.c[stage]);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      mma_ss_n128(scores, a + (k / 4) * (kRows * 128 >> 4) + (k % 4) * 2,
                  b + (k / 4) * (kGateColumns * 128 >> 4) + (k % 4) * 2, k > 0);
    }
    wgmma_commit();
    wgmma_wait<0>();
    pin(scores);
    __syncwarp();
    if (lane == 0) barrier_arrive(&s.empty[stage]);
    if (++stage == kGateStages) {
      stage = 0;
      phase ^= 1;
    }
    const int first_id = step * kGateColumns;
    if (first_id + kGateColumns > least || !tile.valid(p.pass, kRows - 1)) {
      const int column = first_id + 2 * (lane & 3);
#pragma unroll
      for (int i = 0; i < 64; ++i) {
        if (column + 8 * (i / 4) + i % 2 >= candidates[(i / 2) % 2]) scores[i] = -INFINITY;
      }
    }
    lists.offer(scores, first_id, staging);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) write_choice(p, tile, lists, r, row0 + 8 * r);
}

template <int kDim, int kGroups, typename Lists>
cudaError_t launch_gate_kernel(const GateParams& params, const CUtensorMap& centroids,
                               int max_gate_tiles, cudaStream_t stream) {
  constexpr int kBytes = sizeof(GateShared<kDim, kGroups, Lists>) + 1024;
  const auto kernel = gate_kernel<kDim, kGroups, Lists>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  return launch_overlapped(kernel,
                           dim3(static_cast<unsigned>(max_gate_tiles * params.pass.kv_heads)),
                           dim3(kGroups * 128 + 32), kBytes, stream, params, centroids);
}

template <int kDim>
cudaError_t launch_gate_dim(const GateParams& params, const CUtensorMap& centroids, int top_k,
                            int max_gate_tiles, cudaStream_t stream) {
  constexpr int kShort = gate_groups(0);
  constexpr int kLong = gate_groups(64);
  if (top_k <= 5) {
    return launch_gate_kernel<kDim, kShort, ShortLists<4>>(params, centroids, max_gate_tiles,
                                                           stream);
  }
  if (top_k <= 9) {
    return launch_gate_kernel<kDim, kShort, ShortLists<8>>(params, centroids, max_gate_tiles,
                                                           stream);
  }
  if (top_k <= kShortTopK) {
    return launch_gate_kernel<kDim, kShort, ShortLists<12>>(params, centroids, max_gate_tiles,
                                                            stream);
  }
  return launch_gate_kernel<kDim, kLong, LongLists<16>>(params, centroids, max_gate_tiles, stream);
}

}  // namespace mobius::hopper
