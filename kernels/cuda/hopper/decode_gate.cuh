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

/// Eight columns of the centroid of the block that ends at page-table index `last_page`.
__device__ __forceinline__ uint4 load_centroid(const KvPages& kv, const std::int32_t* pages,
                                               int block, int last_page, bool stored, int kv_head,
                                               int column) {
  if (stored) {
    const std::int64_t at = static_cast<std::int64_t>(pages[last_page]) * kv.kv_heads + kv_head;
    return __ldg(reinterpret_cast<const uint4*>(static_cast<const std::uint16_t*>(kv.centroids) +
                                                at * kv.head_dim + column));
  }
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

template <int kDim>
__global__ void __launch_bounds__(kDecodeThreads, 3)
    decode_gate_kernel(const __grid_constant__ DecodeParams p) {
  __shared__ float scores[kGateHeads][kChunkBlocks];
  __shared__ Candidate best[kDecodeWarps][kDecodeMaxTopK];
  release_next_kernel();
  const Slice slice = p.rows.slices[blockIdx.z];
  if (slice.num_rows == 0) return;
  const int kv_head = static_cast<int>(blockIdx.y);
  const int group = p.rows.q_heads / p.kv.kv_heads;
  const int first_head = kv_head * group;
  const std::int64_t pair0 = static_cast<std::int64_t>(blockIdx.z) * p.rows.q_heads + first_head;
  const int lane = static_cast<int>(threadIdx.x & 31);
  const int warp = static_cast<int>(threadIdx.x >> 5);
  if (blockIdx.x == 0) {
    for (int g = static_cast<int>(threadIdx.x); g < group; g += kDecodeThreads) {
      p.arrived[pair0 + g] = 0;
    }
  }
  const DecodeRow row(slice, p.top_k);
  if (row.candidates <= row.wanted) return;  // all are chosen
  const std::int32_t* pages =
      p.rows.page_table + static_cast<std::int64_t>(slice.table_row) * p.rows.table_stride;
  const bool stored = p.kv.centroids != nullptr && p.kv.centroid_block == row.block;
  const int block_pages = row.block / p.kv.page_tokens;
  const auto* q = static_cast<const std::uint16_t*>(p.rows.q) +
                  (static_cast<std::int64_t>(slice.first_row) * p.rows.q_heads + first_head) * kDim;

  for (int chunk = static_cast<int>(blockIdx.x); chunk < row.chunks();
       chunk += static_cast<int>(gridDim.x)) {
    const int first = chunk * kChunkBlocks + warp * 32;
    for (int head0 = 0; head0 < group; head0 += kGateHeads) {
      // A lane holds columns 32 i + 8 (l % 4) .. + 7 of its rows: the sum over columns may take
      // them in any order, as long as centroids and query agree.
      uint4 query[kDim / 32];
      const int head = head0 + lane / 4;
#pragma unroll
      for (int i = 0; i < kDim / 32; ++i) {
        query[i] = make_uint4(0, 0, 0, 0);
        if (head < group) {
          query[i] = *reinterpret_cast<const uint4*>(q + head * kDim + 32 * i + 8 * (lane % 4));
        }
      }
#pragma unroll 1
      for (int tile = 0; tile < 2; ++tile) {
        float sums[4] = {};
        uint4 rows[2][kDim / 32];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int block = min(first + tile * 16 + lane / 4 + 8 * r, row.candidates - 1);
#pragma unroll
          for (int i = 0; i < kDim / 32; ++i) {
            rows[r][i] = load_centroid(p.kv, pages, row.block, (block + 1) * block_pages - 1,
                                       stored, kv_head, 32 * i + 8 * (lane % 4));
          }
        }
#pragma unroll
        for (int i = 0; i < kDim / 32; ++i) {
          mma_16x8x16(sums, rows[0][i].x, rows[1][i].x, rows[0][i].y, rows[1][i].y, query[i].x,
                      query[i].y);
          mma_16x8x16(sums, rows[0][i].z, rows[1][i].z, rows[0][i].w, rows[1][i].w, query[i].z,
                      query[i].w);
        }
        const int column = warp * 32 + tile * 16 + lane / 4;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          scores[2 * (lane % 4) + i % 2][column + 8 * (i / 2)] = sums[i];
        }
      }
      __syncthreads();
      const int count = min(kChunkBlocks, row.candidates - chunk * kChunkBlocks);
      for (int g = warp; g < kGateHeads && head0 + g < group; g += kDecodeWarps) {
        const int held = warp_select(
            [&](int i) {
              return Candidate{ordered(scores[g][i]), chunk * kChunkBlocks + i};
            },
            count, row.wanted, best[warp]);
        Candidate* out =
            p.candidates + ((pair0 + head0 + g) * p.max_chunks + chunk) * (p.top_k - 1);
        for (int i = lane; i < row.wanted; i += 32) {
          out[i] = i < held ? best[warp][i] : Candidate{0, -1};
        }
        __syncwarp();
      }
      __syncthreads();
    }
  }
}

}  // namespace mobius::hopper
