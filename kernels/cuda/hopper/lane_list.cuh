#pragma once

// The best scores of a warp's rows so far, for short lists: each of the four threads that share a
// row keeps, sorted, the best of its own columns, so that entering one needs no other thread. The
// four lists meet once, at the end.

#include <cstdint>

namespace mobius::hopper {

template <int kLength>
struct LaneList {
  float score[kLength];
  int id[kLength];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kLength; ++i) {
      score[i] = -INFINITY;
      id[i] = -1;
    }
  }

  /// Ids must come in ascending order: equal scores stay behind those that are there.
  __device__ __forceinline__ void enter(float value, int value_id) {
#pragma unroll
    for (int i = kLength - 1; i >= 0; --i) {
      const bool here = value > score[i];
      const bool shift = i > 0 && value > score[i > 0 ? i - 1 : 0];
      score[i] = here ? (shift ? score[i > 0 ? i - 1 : 0] : value) : score[i];
      id[i] = here ? (shift ? id[i > 0 ? i - 1 : 0] : value_id) : id[i];
    }
  }

  /// A score that a later column must exceed to be among the row's `wanted` best: every thread's
  /// entry number ceil(wanted / 4) has reached the least of the four.
  __device__ __forceinline__ float bound(int wanted) const {
    float mine = score[0];
#pragma unroll
    for (int i = 1; i < kLength; ++i) mine = i < (wanted + 3) / 4 ? score[i] : mine;
    mine = fminf(mine, __shfl_xor_sync(0xFFFFFFFFu, mine, 1));
    mine = fminf(mine, __shfl_xor_sync(0xFFFFFFFFu, mine, 2));
    return fmaxf(mine, score[kLength - 1]);
  }

  /// Takes the row's best entry out of its thread's list; -1 when there is none. The same in all
  /// four threads; the whole warp calls it.
  __device__ __forceinline__ int pop() {
    float best = score[0];
    int best_id = id[0];
#pragma unroll
    for (int d = 1; d < 4; d *= 2) {
      const float other = __shfl_xor_sync(0xFFFFFFFFu, best, d);
      const int other_id = __shfl_xor_sync(0xFFFFFFFFu, best_id, d);
      // As an unsigned number, -1 is the largest id: it loses.
      if (other > best || (other == best && static_cast<std::uint32_t>(other_id) <
                                                static_cast<std::uint32_t>(best_id))) {
        best = other;
        best_id = other_id;
      }
    }
    const bool mine = best_id == id[0];
#pragma unroll
    for (int i = 0; i < kLength; ++i) {
      score[i] =
          mine ? (i + 1 < kLength ? score[i + 1 < kLength ? i + 1 : 0] : -INFINITY) : score[i];
      id[i] = mine ? (i + 1 < kLength ? id[i + 1 < kLength ? i + 1 : 0] : -1) : id[i];
    }
    return best_id;
  }
};

/// Both rows of a thread; lists of up to kLength scores.
template <int kLength>
struct ShortLists {
  static constexpr int kHeld = (kLength + 3) / 4;  ///< results per thread and row
  static constexpr int kStageBytes = 16 * 32 * 4;  ///< shared memory per warp

  LaneList<kLength> best[2];
  float bound[2];
  int wanted;

  __device__ __forceinline__ void clear(int wanted_scores) {
    wanted = wanted_scores;
    best[0].clear();
    best[1].clear();
    bound[0] = bound[1] = -INFINITY;
  }

  /// One step's scores, as wgmma leaves them. 16 at a time: a bit for each that beats its row's
  /// bound; positions that no thread of the warp wants cost two instructions.
  __device__ __forceinline__ void offer(const float (&scores)[64], int first_id, float4* stage) {
    const int lane = static_cast<int>(threadIdx.x & 31);
    const int lane_id = first_id + 2 * (lane & 3);
#pragma unroll
    for (int j = 0; j < 16; j += 4) {
      const float* s = scores + 4 * j;
      std::uint32_t mask = 0;
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        mask = __funnelshift_l(__float_as_uint(bound[i / 2 % 2] - s[i]), mask, 1);
      }
      std::uint32_t any = __reduce_or_sync(0xFFFFFFFFu, mask);
      if (any == 0) continue;
        // By way of shared memory, since registers have no run-time index.
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        stage[i * 32 + lane] = make_float4(s[4 * i], s[4 * i + 1], s[4 * i + 2], s[4 * i + 3]);
      }
      const float* staged = reinterpret_cast<const float*>(stage + lane);
#pragma unroll 1
      do {
        const unsigned i = static_cast<unsigned>(__clz(static_cast<int>(any)) - 16);
        any &= ~(0x8000u >> i);
        const float value = staged[(i / 4) * 128 + i % 4];
        const int id = lane_id + static_cast<int>(8 * (j + i / 4) + i % 2);
        if (i & 2) {
          best[1].enter(value, id);
        } else {
          best[0].enter(value, id);
        }
      } while (any != 0);
      bound[0] = best[0].bound(wanted);
      bound[1] = best[1].bound(wanted);
    }
  }

  /// This thread's share of row `r`'s best: ids (-1: none) and the slots they go to.
  __device__ __forceinline__ void collect(int r, int (&ids)[kHeld], int (&slots)[kHeld]) {
    const int own = static_cast<int>(threadIdx.x & 3);
    // A copy with constant indices, so that the lists stay in registers.
    LaneList<kLength> list = r == 0 ? best[0] : best[1];
#pragma unroll
    for (int i = 0; i < kHeld * 4; ++i) {
      const int id = list.pop();
      if (i % 4 == own) {
        ids[i / 4] = i < wanted ? id : -1;
        slots[i / 4] = i;
      }
    }
  }
};

}  // namespace mobius::hopper
