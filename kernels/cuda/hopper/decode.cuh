#pragma once

// What the decode kernels share: choosing the best of many scored blocks within a warp.

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/hopper/moba.h"

namespace mobius::hopper {

constexpr int kDecodeThreads = 256;
constexpr int kDecodeWarps = kDecodeThreads / 32;
constexpr int kChunkBlocks = 256;  ///< blocks scored by one block of threads at a time
constexpr int kDecodeMaxTopK = 64;
constexpr int kPartKeys = 256;
constexpr int kMaxParts = 16;

/// Candidates that warp_select takes at a time.
constexpr int kSelectAtOnce = 256;

/// A scored block: the score as an unsigned number of the same order. `id` -1: none.
struct Candidate {
  std::uint32_t key;
  std::int32_t id;
};

__device__ __forceinline__ std::uint32_t ordered(float score) {
  if (!(score > -INFINITY)) return 0;  // NaN is never chosen
  const std::uint32_t bits = __float_as_uint(score);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/// The `wanted` best of `count` candidates from `source(i)`, best first, equal ones by id, into
/// `best`; returns how many there are. One warp calls it; `best` must not alias the source.
template <typename Source>
__device__ __forceinline__ int warp_select(const Source& source, int count, int wanted,
                                           Candidate* best) {
  constexpr int kEach = kSelectAtOnce / 32;
  const int lane = static_cast<int>(threadIdx.x & 31);
  int held = 0;
  int next = 0;
  do {
    // Those held so far compete again with a batch of new ones.
    const int fresh = min(count - next, 32 * kEach - held);
    Candidate mine[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int at = i * 32 + lane;
      mine[i] = Candidate{0, -1};
      if (at < held) {
        mine[i] = best[at];
      } else if (at - held < fresh) {
        mine[i] = source(next + at - held);
      }
      if (mine[i].id < 0) mine[i].key = 0;
    }
    __syncwarp();
    next += fresh;
    int found = 0;
    for (; found < wanted; ++found) {
      std::uint32_t top = 0;
      int top_id = 0x7FFFFFFF;
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        if (mine[i].key > top || (mine[i].key == top && mine[i].key > 0 && mine[i].id < top_id)) {
          top = mine[i].key;
          top_id = mine[i].id;
        }
      }
      const std::uint32_t winner = __reduce_max_sync(0xFFFFFFFFu, top);
      if (winner == 0) break;
      const int id = __reduce_min_sync(0xFFFFFFFFu, top == winner ? top_id : 0x7FFFFFFF);
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        if (mine[i].id == id) mine[i].key = 0;
      }
      if (lane == 0) best[found] = Candidate{winner, id};
    }
    held = found;
    __syncwarp();
  } while (next < count);
  return held;
}

struct DecodeParams {
  KvPages kv;
  Rows rows;
  std::int32_t top_k;       ///< of the limits
  std::int32_t max_chunks;  ///< per sequence
  std::int32_t splits;      ///< most blocks of threads per row and head
  std::int32_t share_keys;  ///< fewest keys worth a block of threads of their own
  Candidate* candidates;    ///< [slices, q_heads, max_chunks, top_k - 1]
  float* partial;           ///< [slices, q_heads, kMaxParts, d + 2]: sum of p v, maximum, sum of p
  std::uint32_t* arrived;   ///< [slices, q_heads]
  float scale_log2;
};

/// Position of a slice's one row, its candidates and how many of them it chooses.
struct DecodeRow {
  std::int32_t position;
  std::int32_t block;
  std::int32_t candidates;
  std::int32_t wanted;

  __device__ __forceinline__ DecodeRow(const Slice& slice, int max_top_k) {
    position = slice.first_position;
    block = slice.block > 0 ? slice.block : position + 1;
    candidates = position / block;
    wanted = slice.block > 0 ? min(min(slice.top_k, max_top_k) - 1, candidates) : 0;
  }
  __device__ __forceinline__ int most_keys() const { return wanted * block + position % block + 1; }
  /// Into how many parts its chosen keys are cut, each summed up on its own and merged in order.
  /// Not by how many blocks of threads there are: a row's bits are to depend on the row alone.
  __device__ __forceinline__ int parts() const {
    return min((most_keys() + kPartKeys - 1) / kPartKeys, kMaxParts);
  }
  __device__ __forceinline__ int chunks() const {
    return (candidates + kChunkBlocks - 1) / kChunkBlocks;
  }
};

}  // namespace mobius::hopper
