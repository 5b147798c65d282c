#pragma once

// The best scores of a warp's rows so far, for long lists: spread over the registers of the four
// threads that share a row.

#include <cstdint>

namespace mobius::hopper {

/// Up to 4 * kEntries scores of one row, kEntries in each of the four threads of a quad, in no
/// order. An entry's tag is (id + 1) * 64 + its slot, so that tags tell entries apart and, among
/// equal scores, the larger tag is the larger id: the one to give up first.
template <int kEntries>
struct TopList {
  float score[kEntries];
  int tag[kEntries];
  float worst;  ///< lowest score held, the same in all four threads; -inf while there is room
  int victim;   ///< tag of the entry that the next better score replaces

  __device__ __forceinline__ void clear(int capacity) {
    const int first = static_cast<int>(threadIdx.x & 3) * kEntries;
#pragma unroll
    for (int e = 0; e < kEntries; ++e) {
      // Slots beyond the capacity hold what no score can replace.
      score[e] = first + e < capacity ? -INFINITY : INFINITY;
      tag[e] = first + e;
    }
    find_worst();
  }

  __device__ __forceinline__ void find_worst() {
    worst = score[0];
    victim = tag[0];
#pragma unroll
    for (int e = 1; e < kEntries; ++e) take_worse(score[e], tag[e]);
#pragma unroll
    for (int d = 1; d < 4; d *= 2) {
      const float other = __shfl_xor_sync(0xFFFFFFFFu, worst, d);
      const int other_tag = __shfl_xor_sync(0xFFFFFFFFu, victim, d);
      take_worse(other, other_tag);
    }
  }

  __device__ __forceinline__ void take_worse(float s, int t) {
    if (s < worst || (s == worst && t > victim)) {
      worst = s;
      victim = t;
    }
  }

  /// Offers two scores per thread, ids `id` and `id + 1` where a quad's four threads hold eight ids
  /// in a row. Lower ids enter first and equal ones do not replace, so ties go to the lower id.
  /// The whole warp calls it.
  __device__ __forceinline__ void offer(float first, float second, int id) {
    const int lane = static_cast<int>(threadIdx.x & 31);
    bool has_first = first > worst;
    bool has_second = second > worst;
    while (const unsigned any = __ballot_sync(0xFFFFFFFFu, has_first || has_second)) {
      const unsigned quad = (any >> (lane & 28)) & 15u;
      const int from = (lane & 28) | (quad != 0 ? __ffs(static_cast<int>(quad)) - 1 : 0);
      const float value = __shfl_sync(0xFFFFFFFFu, has_first ? first : second, from);
      const int value_id = __shfl_sync(0xFFFFFFFFu, has_first ? id : id + 1, from);
      if (lane == from) {
        has_second = has_first && has_second;
        has_first = false;
      }
      if (quad != 0) {
#pragma unroll
        for (int e = 0; e < kEntries; ++e) {
          if (tag[e] == victim) {
            score[e] = value;
            tag[e] = (value_id + 1) * 64 + (victim & 63);
          }
        }
      }
      find_worst();
      has_first = has_first && first > worst;
      has_second = has_second && second > worst;
    }
  }

  /// Entries of the whole row with a lower id than this entry's. The whole warp calls it.
  __device__ __forceinline__ int rank(int entry_tag) const {
    int lower = 0;
#pragma unroll
    for (int e = 0; e < kEntries; ++e) {
#pragma unroll
      for (int d = 0; d < 4; ++d) {
        const int other = __shfl_xor_sync(0xFFFFFFFFu, tag[e], d);
        lower += other >= 64 && other < entry_tag;
      }
    }
    return lower;
  }
};

/// Both rows of a thread; lists of up to 4 * kEntries scores. The interface of ShortLists.
template <int kEntries>
struct LongLists {
  static constexpr int kHeld = kEntries;
  static constexpr int kStageBytes = 0;

  TopList<kEntries> best[2];

  __device__ __forceinline__ void clear(int wanted) {
    best[0].clear(wanted);
    best[1].clear(wanted);
  }

  /// The vote on 32 columns at a time makes the common case, nothing good enough in the whole warp,
  /// cheap.
  __device__ __forceinline__ void offer(const float (&scores)[64], int first_id, float4*) {
    constexpr int kSpan = 4;
    const int lane_id = first_id + 2 * static_cast<int>(threadIdx.x & 3);
#pragma unroll
    for (int j = 0; j < 16; j += kSpan) {
      float top0 = scores[4 * j];
      float top1 = scores[4 * j + 2];
#pragma unroll
      for (int i = 0; i < kSpan; ++i) {
        const float* s = scores + 4 * (j + i);
        top0 = fmaxf(top0, fmaxf(s[0], s[1]));
        top1 = fmaxf(top1, fmaxf(s[2], s[3]));
      }
      if (__any_sync(0xFFFFFFFFu, top0 > best[0].worst || top1 > best[1].worst)) {
        float s[4 * kSpan];
#pragma unroll
        for (int i = 0; i < 4 * kSpan; ++i) s[i] = scores[4 * j + i];
          // Rolled, the values moving down, so that the code of offer() exists few times.
#pragma unroll 1
        for (int i = 0; i < kSpan; ++i) {
          best[0].offer(s[0], s[1], lane_id + 8 * (j + i));
          best[1].offer(s[2], s[3], lane_id + 8 * (j + i));
#pragma unroll
          for (int k = 0; k + 4 < 4 * kSpan; ++k) s[k] = s[k + 4];
        }
      }
    }
  }

  __device__ __forceinline__ void collect(int r, int (&ids)[kHeld], int (&slots)[kHeld]) {
#pragma unroll
    for (int e = 0; e < kEntries; ++e) {
      const int tag = r == 0 ? best[0].tag[e] : best[1].tag[e];
      ids[e] = tag / 64 - 1;
      slots[e] = (r == 0 ? best[0] : best[1]).rank(tag);
    }
  }
};

}  // namespace mobius::hopper
