#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/fp8.cuh"

// One warp's inside of attention: 16 rows of queries against 32 keys at a time, with mma.sync
// m16n8k16 on bf16. Operands come from global memory (through L1) straight into fragments, 16 bytes
// a load, without shared memory. Two permutations make that possible, both of indices that are
// summed over or that the epilogue undoes:
//
//   q k^T  sums over dimensions in any order, the same for both operands: lane c of a group of four
//          holds dimensions 32 j + 8 c ... + 7, i.e. two k-steps' worth, in one load.
//   p v    column n of output tile j is dimension 8 n + j (of 64): a lane's load of 8 dimensions
//          feeds 8 output tiles, and each lane ends up with 8 consecutive dimensions to store.

namespace mobius {

constexpr unsigned kFullMask = 0xffffffffU;
constexpr int kTileKeys = 32;

/// c[16, 8] += a[16, 16] * b[16, 8].
__device__ inline void mma_bf16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline std::uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(pair);
}

__device__ inline float low_bf16(std::uint32_t pair) {
  return __uint_as_float(pair << 16);
}
__device__ inline float high_bf16(std::uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000U);
}

/// MoBA's block at a layer for a slice, 0 under full attention (moba.md, rule 8).
__device__ inline int block_at(const AttentionCall& call, int slice) {
  const bool full = call.layer >= call.num_layers - call.step.full_last_layers[slice];
  return full ? 0 : call.step.policy_block[slice];
}

/// Where the span that is the `item`-th of all rows lies.
struct Span {
  int single;  ///< index among one-row slices
  int index;   ///< among the row's spans
};

__device__ inline Span find_span(const AttentionCall& call, int item) {
  int low = 0;
  int high = call.single - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (call.step.single_spans[middle] <= item) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return {low, item - call.step.single_spans[low]};
}

/// A row that a lane works on: a query head at a position. Rows of a warp are query-major.
struct WarpRow {
  std::int64_t row = 0;  ///< in the step; -1: padding
  int head = 0;
  int position = -1;
};

__device__ inline WarpRow warp_row(const AttentionCall& call, int slice, int first_query,
                                   int kv_head, int r) {
  const int gqa = call.heads / call.kv_heads;
  const int queries = warp_queries(gqa);
  const int query = first_query + r / gqa;
  WarpRow row;
  row.row = -1;
  if (r / gqa < queries && query < call.step.num_rows[slice]) {
    row.row = call.step.first_row[slice] + query;
    row.head = kv_head * gqa + r % gqa;
    row.position = call.step.first_position[slice] + query;
  }
  return row;
}

/// The q operand of 16 rows.
template <int D>
struct QueryFragments {
  std::uint32_t a[D / 16][4];

  __device__ void load(const AttentionCall& call, const WarpRow& top, const WarpRow& bottom) {
    const int c = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int j = 0; j < D / 32; ++j) {
      const uint4 zero = make_uint4(0, 0, 0, 0);
      const auto at = [&](const WarpRow& row) {
        if (row.row < 0) return zero;
        return *reinterpret_cast<const uint4*>(call.q + (row.row * call.heads + row.head) * D +
                                               32 * j + 8 * c);
      };
      const uint4 x = at(top);
      const uint4 y = at(bottom);
      a[2 * j][0] = x.x;
      a[2 * j][1] = y.x;
      a[2 * j][2] = x.y;
      a[2 * j][3] = y.y;
      a[2 * j + 1][0] = x.z;
      a[2 * j + 1][1] = y.z;
      a[2 * j + 1][2] = x.w;
      a[2 * j + 1][3] = y.w;
    }
  }

  /// c += q * k^T for 8 keys, lane / 4 naming the key whose D elements start at `key`.
  __device__ void score(float (&c)[4], const uint4 (&key)[D / 32]) const {
#pragma unroll
    for (int j = 0; j < D / 32; ++j) {
      mma_bf16(c, a[2 * j], key[j].x, key[j].y);
      mma_bf16(c, a[2 * j + 1], key[j].z, key[j].w);
    }
  }
};

/// A lane's part of one sequence's keys and values of one KV head. kFp8: they are records.
template <int D, bool kFp8>
struct SequenceReader {
  const std::uint16_t* keys;
  const std::uint16_t* values;
  const std::int32_t* pages;
  int page_tokens;
  int kv_heads;
  int kv_head;
  int end;  ///< keys at and after this position are not there

  __device__ SequenceReader(const AttentionCall& call, int slice, int kv_head_in, int end_in)
      : keys(call.keys),
        values(call.values),
        pages(call.step.pages + std::int64_t{slice} * call.step.max_pages),
        page_tokens(call.page_tokens),
        kv_heads(call.kv_heads),
        kv_head(kv_head_in),
        end(end_in) {}

  /// Offset of the first of 16 keys at a multiple of 16, which never leave a page.
  __device__ std::int64_t offset(int key) const {
    if (key >= end) return 0;
    const int index = key / page_tokens;
    const std::int64_t vector = std::int64_t{pages[index]} * kv_heads + kv_head;
    const std::int64_t token = vector * page_tokens + (key - index * page_tokens);
    if constexpr (kFp8) return token / hopper::kRecordTokens * hopper::record_bytes(D);
    return token * D;
  }

  /// Some dimensions of one key or value: bf16, or codes and their scale, twice.
  struct Codes {
    const std::uint8_t* at;
    std::uint32_t scale;
  };
  using Place = std::conditional_t<kFp8, Codes, const std::uint16_t*>;

  /// Those from `dim` on of the `slot`-th of the 16 keys (or values) at `offset`.
  __device__ static Place place(const std::uint16_t* operand, std::int64_t offset, int slot,
                                int dim) {
    if constexpr (kFp8) {
      const auto* record = reinterpret_cast<const std::uint8_t*>(operand) + offset;
      return {record + slot * D + dim, scale_bf16x2(record[hopper::kRecordTokens * D + slot])};
    } else {
      return operand + offset + slot * D + dim;
    }
  }

  /// 8 dimensions, `step` behind.
  __device__ static uint4 load8(const Place& from, int step) {
    if constexpr (kFp8) {
      const uint2 codes = *reinterpret_cast<const uint2*>(from.at + step);
      uint4 wide;
      widen_four(codes.x, from.scale, &wide.x, &wide.y);
      widen_four(codes.y, from.scale, &wide.z, &wide.w);
      return wide;
    } else {
      return *reinterpret_cast<const uint4*>(from + step);
    }
  }

  /// 4 dimensions.
  __device__ static uint2 load4(const Place& from) {
    if constexpr (kFp8) {
      uint2 wide;
      widen_four(*reinterpret_cast<const std::uint32_t*>(from.at), from.scale, &wide.x, &wide.y);
      return wide;
    } else {
      return *reinterpret_cast<const uint2*>(from);
    }
  }
};

/// Running softmax over keys for 16 rows: maximum (log2 units), sum, weighted values.
template <int D>
struct SoftmaxRows {
  static constexpr int kVector = D >= 64 ? 8 : 4;  ///< dimensions of a lane's load of values
  static constexpr int kGroups = D / (8 * kVector);

  float out[kGroups][kVector][4];
  float maximum[2];
  float sum[2];

  __device__ void clear() {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[g][j][i] = 0.0F;
      }
    }
    maximum[0] = maximum[1] = -INFINITY;
    sum[0] = sum[1] = 0.0F;
  }

  /// Keys [first, first + 32), first a multiple of 16. limit[h][i]: the last key that row i of the
  /// lane (lane / 4, + 8) attends among those of half h. scale: 1 / sqrt(D) in units of log2.
  template <bool kFp8>
  __device__ void attend(const QueryFragments<D>& q, const SequenceReader<D, kFp8>& sequence,
                         int first, const int (&limit)[2][2], float scale) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int c = lane % 4;
    const int n = lane / 4;
    const uint4 zero = make_uint4(0, 0, 0, 0);
    const std::int64_t offset[2] = {sequence.offset(first), sequence.offset(first + 16)};
    float s[4][4];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      uint4 key[D / 32];
      const bool there = first + 8 * t + n < sequence.end;
      const auto from = sequence.place(sequence.keys, offset[t / 2], 8 * (t % 2) + n, 8 * c);
#pragma unroll
      for (int j = 0; j < D / 32; ++j) key[j] = there ? sequence.load8(from, 32 * j) : zero;
#pragma unroll
      for (int i = 0; i < 4; ++i) s[t][i] = 0.0F;
      q.score(s[t], key);
    }

    float highest[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int t = 0; t < 4; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = first + 8 * t + 2 * c + i % 2;
        s[t][i] = key <= limit[t / 2][i / 2] ? s[t][i] * scale : -INFINITY;
        highest[i / 2] = fmaxf(highest[i / 2], s[t][i]);
      }
    }
    std::uint32_t p[2][4];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(kFullMask, highest[r], 1));
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(kFullMask, highest[r], 2));
      const float next = fmaxf(maximum[r], highest[r]);
      // A row that has met no key keeps maximum -inf: subtract 0 so that exp2 gives 0, not NaN.
      const float shift = next == -INFINITY ? 0.0F : next;
      const float fade = exp2f(maximum[r] - shift);
      maximum[r] = next;
      float added = 0.0F;
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        const std::uint32_t pair =
            pack_bf16(exp2f(s[t][2 * r] - shift), exp2f(s[t][2 * r + 1] - shift));
        p[t / 2][2 * (t % 2) + r] = pair;
        // What is summed is what weighs the values.
        added += low_bf16(pair) + high_bf16(pair);
      }
      sum[r] = sum[r] * fade + added;
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
#pragma unroll
        for (int j = 0; j < kVector; ++j) {
          out[g][j][2 * r] *= fade;
          out[g][j][2 * r + 1] *= fade;
        }
      }
    }

    // Values beyond the end are zero, not what memory holds: 0 * NaN would be NaN.
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        std::uint32_t value[4][kVector / 2];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int slot = 2 * c + i % 2 + 8 * (i / 2);
          const bool there = first + 16 * h + slot < sequence.end;
          const auto from =
              sequence.place(sequence.values, offset[h], slot, g * 8 * kVector + n * kVector);
          if constexpr (kVector == 8) {
            const uint4 x = there ? sequence.load8(from, 0) : zero;
            value[i][0] = x.x;
            value[i][1] = x.y;
            value[i][2] = x.z;
            value[i][3] = x.w;
          } else {
            const uint2 x = there ? sequence.load4(from) : make_uint2(0, 0);
            value[i][0] = x.x;
            value[i][1] = x.y;
          }
        }
#pragma unroll
        for (int j = 0; j < kVector; ++j) {
          const unsigned halves = j % 2 == 0 ? 0x5410 : 0x7632;
          mma_bf16(out[g][j], p[h], __byte_perm(value[0][j / 2], value[1][j / 2], halves),
                   __byte_perm(value[2][j / 2], value[3][j / 2], halves));
        }
      }
    }
  }

  /// Adds up the sum's parts of a row's four lanes.
  __device__ void finish() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(kFullMask, sum[r], 1);
      sum[r] += __shfl_xor_sync(kFullMask, sum[r], 2);
    }
  }

  /// The dimension that out[g][0][2 * r + e] belongs to; j adds to it.
  __device__ static int dimension(int g, int e) {
    const int c = static_cast<int>(threadIdx.x) % 4;
    return g * 8 * kVector + (2 * c + e) * kVector;
  }
};

__device__ inline bool is_selected(const AttentionCall& call, const WarpRow& row, int block) {
  const std::uint32_t* words =
      call.workspace.selection +
      (row.row * call.heads + row.head) * std::int64_t{call.workspace.selection_words};
  return (words[block / 32] >> (block % 32) & 1U) != 0;
}

template <int D>
__device__ inline float softmax_scale() {
  constexpr float kLog2E = 1.4426950408889634F;
  return kLog2E / sqrtf(static_cast<float>(D));
}

}  // namespace mobius
