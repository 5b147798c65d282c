#pragma once

// Decode, first kernel: scores of one KV head's query heads against 256 centroids at a time, and
// the best of each 256.

#include <cuda_bf16.h>

#include "kernels/cuda/hopper/decode.cuh"
#include "kernels/cuda/hopper/ptx.cuh"

namespace mobius::hopper {

constexpr int kGateHeads = 8;  ///< query heads per product; larger groups take several

/// d += A B for A 16 x 16 (rows l / 4 and l / 4 + 8 of lane l) and B 16 x 8, bf16.
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], std::uint32_t a0, std::uint32_t a1,
                                            std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                                            std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/// Eight columns of the centroid of the block that ends at page-table index `last_page`, from page
/// sums.
__device__ __forceinline__ uint4 sum_centroid(const KvPages& kv, const std::int32_t* pages,
                                              int block, int last_page, int kv_head, int column) {
  float sum[8] = {};
  for (int page = last_page + 1 - block / kv.page_tokens; page <= last_page; ++page) {
    const std::int64_t at = static_cast<std::int64_t>(pages[page]) * kv.kv_heads + kv_head;
    const float4* source = reinterpret_cast<const float4*>(kv.key_sums + at * kv.head_dim + column);
    const float4 low = __ldg(source);
    const float4 high = __ldg(source + 1);
    sum[0] += low.x, sum[1] += low.y, sum[2] += low.z, sum[3] += low.w;
    sum[4] += high.x, sum[5] += high.y, sum[6] += high.z, sum[7] += high.w;
  }
  uint4 packed;
  auto* halves = reinterpret_cast<__nv_bfloat16*>(&packed);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    halves[i] = __float2bfloat16_rn(__fdiv_rn(sum[i], static_cast<float>(block)));
  }
  return packed;
}

/// A warp's 32 centroids of a chunk: rows l / 4 + 8 r of tile t, columns 32 i + 8 (l % 4) .. + 7 of
/// lane l. Products may take columns in any order, as long as the query has the same.
template <int kDim>
struct WarpCentroids {
  static constexpr int kTiles = 2;
  uint4 rows[kTiles][2][kDim / 32];

  /// Stored ones: puts all of it on its way at once. `first`: the warp's first block.
  __device__ __forceinline__ void load(const KvPages& kv, const std::int32_t* pages,
                                       const DecodeRow& row, int kv_head, int first) {
    const int lane = static_cast<int>(threadIdx.x & 31);
    std::uint32_t at[kTiles][2];
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int page = __ldg(pages + last_page(kv, row, first, t, r));
        at[t][r] = static_cast<std::uint32_t>(page * kv.kv_heads + kv_head) * (kDim / 8);
      }
    }
    const auto* centroids = static_cast<const uint4*>(kv.centroids) + lane % 4;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int i = 0; i < kDim / 32; ++i) rows[t][r][i] = __ldg(centroids + at[t][r] + 4 * i);
      }
    }
  }

  /// Those that are not stored: one after the other, for registers are scarce.
  __device__ __forceinline__ void sum(const KvPages& kv, const std::int32_t* pages,
                                      const DecodeRow& row, int kv_head, int first) {
    constexpr int kEach = kDim / 32;
    const int lane = static_cast<int>(threadIdx.x & 31);
#pragma unroll 1
    for (int at = 0; at < kTiles * 2 * kEach; ++at) {
      const uint4 centroid = sum_centroid(kv, pages, row.block,
                                          last_page(kv, row, first, at / kEach / 2, at / kEach % 2),
                                          kv_head, 32 * (at % kEach) + 8 * (lane % 4));
#pragma unroll
      for (int to = 0; to < kTiles * 2 * kEach; ++to) {
        if (to == at) rows[to / kEach / 2][to / kEach % 2][to % kEach] = centroid;
      }
    }
  }

 private:
  __device__ __forceinline__ static int last_page(const KvPages& kv, const DecodeRow& row,
                                                  int first, int t, int r) {
    const int lane = static_cast<int>(threadIdx.x & 31);
    const int block = min(first + t * 16 + r * 8 + lane / 4, row.candidates - 1);
    return (block + 1) * (row.block / kv.page_tokens) - 1;
  }
};

/// Up to kGateHeads query heads, from `head0` on, as the n side of a product; the rest is zero.
template <int kDim>
__device__ __forceinline__ void load_queries(uint4 (&query)[kDim / 32], const std::uint16_t* q,
                                             int head0, int group) {
  const int lane = static_cast<int>(threadIdx.x & 31);
  const int head = head0 + lane / 4;
#pragma unroll
  for (int i = 0; i < kDim / 32; ++i) {
    query[i] = make_uint4(0, 0, 0, 0);
    if (head < group) {
      query[i] = *reinterpret_cast<const uint4*>(q + head * kDim + 32 * i + 8 * (lane % 4));
    }
  }
}

/// The `wanted` best of a warp's keys, best first, equal ones by id, to global memory; behind them
/// none. Key i of lane l has id `first` + 32 i + l; a key of 0 is nobody's.
template <int kEach>
__device__ __forceinline__ void store_best(std::uint32_t (&keys)[kEach], int first, int wanted,
                                           Candidate* out) {
  const int lane = static_cast<int>(threadIdx.x & 31);
  for (int found = 0; found < wanted; ++found) {
    std::uint32_t top = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) top = max(top, keys[i]);
    const std::uint32_t winner = __reduce_max_sync(0xFFFFFFFFu, top);
    if (winner == 0) {
      for (int i = found + lane; i < wanted; i += 32) out[i] = Candidate{0, -1};
      return;
    }
    unsigned own = 32 * kEach;
#pragma unroll
    for (int i = kEach - 1; i >= 0; --i) {
      if (keys[i] == winner) own = static_cast<unsigned>(i * 32 + lane);
    }
    const unsigned id = __reduce_min_sync(0xFFFFFFFFu, own);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (static_cast<unsigned>(i * 32 + lane) == id) keys[i] = 0;
    }
    if (lane == 0) out[found] = Candidate{winner, first + static_cast<int>(id)};
  }
}

template <int kDim>
__global__ void __launch_bounds__(kDecodeThreads, 2)
    decode_gate_kernel(const __grid_constant__ DecodeParams p) {
  __shared__ float scores[kGateHeads][kChunkBlocks];
  release_next_kernel();
  const Slice slice = p.rows.slices[blockIdx.z];
  const DecodeRow row(slice, p.top_k);
  const int kv_head = static_cast<int>(blockIdx.y);
  const int group = p.rows.q_heads / p.kv.kv_heads;
  const int first_head = kv_head * group;
  const std::int64_t pair0 = static_cast<std::int64_t>(blockIdx.z) * p.rows.q_heads + first_head;
  const int warp = static_cast<int>(threadIdx.x >> 5);
  const bool gated = slice.num_rows != 0 && row.candidates > row.wanted;  // else all are chosen
  const int chunks = gated ? row.chunks() : 0;
  int chunk = static_cast<int>(blockIdx.x);
  if (chunk >= chunks && chunk > 0) return;
  const std::int32_t* pages =
      p.rows.page_table + static_cast<std::int64_t>(slice.table_row) * p.rows.table_stride;
  const bool stored = p.kv.centroids != nullptr && p.kv.centroid_block == row.block;
  const auto* q = static_cast<const std::uint16_t*>(p.rows.q) +
                  (static_cast<std::int64_t>(slice.first_row) * p.rows.q_heads + first_head) * kDim;
  WarpCentroids<kDim> centroids;
  const auto load = [&] {
    centroids.load(p.kv, pages, row, kv_head, chunk * kChunkBlocks + warp * 32);
  };
  const bool early = stored && p.rows.early_centroids && chunk < chunks;
  if (early) load();
  // The first block of a row and KV head waits even if it has nothing to do: what comes next takes
  // the end of this kernel for the end of all before.
  wait_previous_kernel();
  if (chunk == 0) {
    for (int g = static_cast<int>(threadIdx.x); g < group; g += kDecodeThreads) {
      p.arrived[pair0 + g] = 0;
    }
  }
  if (chunk >= chunks) return;
  if (stored && !early) load();
  while (true) {
    const int now = chunk;
    if (!stored) centroids.sum(p.kv, pages, row, kv_head, now * kChunkBlocks + warp * 32);
    chunk += static_cast<int>(gridDim.x);
    for (int head0 = 0; head0 < group; head0 += kGateHeads) {
      uint4 query[kDim / 32];
      load_queries<kDim>(query, q, head0, group);
#pragma unroll
      for (int t = 0; t < WarpCentroids<kDim>::kTiles; ++t) {
        float sums[4] = {};
        const auto& rows = centroids.rows[t];
#pragma unroll
        for (int i = 0; i < kDim / 32; ++i) {
          mma_16x8x16(sums, rows[0][i].x, rows[1][i].x, rows[0][i].y, rows[1][i].y, query[i].x,
                      query[i].y);
          mma_16x8x16(sums, rows[0][i].z, rows[1][i].z, rows[0][i].w, rows[1][i].w, query[i].z,
                      query[i].w);
        }
        const int lane = static_cast<int>(threadIdx.x & 31);
        const int column = warp * 32 + t * 16 + lane / 4;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          scores[2 * (lane % 4) + i % 2][column + 8 * (i / 2)] = sums[i];
        }
      }
      // The next chunk is on its way while the best of this one are found.
      if (stored && head0 + kGateHeads >= group && chunk < chunks) load();
      __syncthreads();
      const int lane = static_cast<int>(threadIdx.x & 31);
      for (int g = warp; g < kGateHeads && head0 + g < group; g += kDecodeWarps) {
        const int begin = now * kChunkBlocks;
        const int count = min(kChunkBlocks, row.candidates - begin);
        Candidate* out = p.candidates + ((pair0 + head0 + g) * p.max_chunks + now) * (p.top_k - 1);
        std::uint32_t keys[kChunkBlocks / 32];
#pragma unroll
        for (int i = 0; i < kChunkBlocks / 32; ++i) {
          const int at = i * 32 + lane;
          keys[i] = at < count ? ordered(scores[g][at]) : 0;
        }
        store_best(keys, begin, row.wanted, out);
      }
      __syncthreads();
    }
    if (chunk >= chunks) return;
  }
}

}  // namespace mobius::hopper
