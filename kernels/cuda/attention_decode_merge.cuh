#pragma once

#include "kernels/cuda/attention_decode_piece.cuh"

// Decode under full attention: the warps' sums of a part become one, and a row's parts are added
// up.
//
// There is one order for both: warps from the first to the last, then parts from the first to the
// last, a left fold. The block that has a row's first run keeps that fold in registers. Runs that
// begin later leave each of their parts in the workspace, and so does the first its fold, if it is
// not the only one; the last to arrive continues the first one's fold. Each step of it is the same
// instructions wherever it happens, so that where runs begin does not change a bit.

namespace mobius::decode {

constexpr int kComputingBarrier = 1;
/// Parts that are on their way from the workspace at once. With 8 KV heads a row has no more.
constexpr int kPickedUp = 16;

/// Floats from one head's sums to the next one's, of one warp: no bank conflicts.
template <int D>
constexpr int head_pitch() {
  return D + 4;
}

/// Where the warps meet, beside their sums: [warp][head], head_pitch<D>() floats each.
struct Meeting {
  std::uint64_t taken;                ///< barrier: the warps that have read all sums
  float2 states[kWarps][kMostHeads];  ///< maximum and sum of each warp and head
  bool last;                          ///< all other runs of the row are there
};

/// Four dimensions of a head.
struct Quarter {
  float4 out;
  float maximum;
  float sum;
};

/// A thread's share of all heads and dimensions of a KV head: those that `for_quarters` visits.
template <int D>
struct Fold {
  static constexpr int kQuarters = kMostHeads * (D / 4) / kThreads;
  static_assert(kQuarters * kThreads == kMostHeads * (D / 4));
  Quarter quarters[kQuarters];
};

template <int D, class Visit>
__device__ __forceinline__ void for_quarters(int gqa, const Visit& visit) {
#pragma unroll
  for (int i = 0; i < Fold<D>::kQuarters; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * kThreads;
    if (at < gqa * (D / 4)) visit(i, at / (D / 4), at % (D / 4) * 4);
  }
}

__device__ __forceinline__ void sync_computing() {
  hopper::named_sync(kComputingBarrier, kThreads);
}

/// `mine` * to + `theirs` * value, with these roundings and no others.
__device__ __forceinline__ float fold_in(float to, float mine, float value, float theirs) {
  return __fmaf_rn(theirs, value, __fmul_rn(mine, to));
}

/// Adds the next part.
__device__ __forceinline__ void fold_in(Quarter& to, const Quarter& part) {
  const float best = fmaxf(to.maximum, part.maximum);
  const float mine = exp2_approx(__fsub_rn(to.maximum, best));
  const float theirs = exp2_approx(__fsub_rn(part.maximum, best));
  to.maximum = best;
  to.sum = fold_in(to.sum, mine, part.sum, theirs);
  to.out.x = fold_in(to.out.x, mine, part.out.x, theirs);
  to.out.y = fold_in(to.out.y, mine, part.out.y, theirs);
  to.out.z = fold_in(to.out.z, mine, part.out.z, theirs);
  to.out.w = fold_in(to.out.w, mine, part.out.w, theirs);
}

/// Where a part's sums of a head lie in the workspace.
__device__ __forceinline__ std::int64_t slot_of(const AttentionCall& call, const DecodeRun& run,
                                                int head, int part) {
  return (std::int64_t{run.slice} * call.heads + run.kv_head * call.gqa + head) * kMaxSpans + part;
}

template <int D>
__device__ __forceinline__ void leave(const AttentionCall& call, const DecodeRun& run, int head,
                                      int d, int part, const Quarter& quarter) {
  const std::int64_t slot = slot_of(call, run, head, part);
  *reinterpret_cast<float4*>(call.workspace.partial_out + slot * D + d) = quarter.out;
  if (d == 0) {
    *reinterpret_cast<float2*>(call.workspace.partial_state + 2 * slot) =
        make_float2(quarter.maximum, quarter.sum);
  }
}

template <int D>
__device__ __forceinline__ Quarter pick_up(const AttentionCall& call, std::int64_t slot, int d) {
  const float2 state =
      __ldcg(reinterpret_cast<const float2*>(call.workspace.partial_state + 2 * slot));
  return {__ldcg(reinterpret_cast<const float4*>(call.workspace.partial_out + slot * D + d)),
          state.x, state.y};
}

template <int D>
__device__ __forceinline__ void store_out(const AttentionCall& call, const DecodeRun& run, int head,
                                          int d, const Quarter& quarter) {
  uint2 packed;
  packed.x = pack_bf16(quarter.out.x / quarter.sum, quarter.out.y / quarter.sum);
  packed.y = pack_bf16(quarter.out.z / quarter.sum, quarter.out.w / quarter.sum);
  const std::int64_t row_head = std::int64_t{run.row} * call.heads + run.kv_head * call.gqa + head;
  *reinterpret_cast<uint2*>(call.out + row_head * D + d) = packed;
}

/// The warps' sums of a head's four dimensions.
template <int D>
__device__ __forceinline__ Quarter merge_warps(const Meeting& meeting, const float* sums, int gqa,
                                               int head, int d) {
  float2 states[kWarps];
#pragma unroll
  for (int w = 0; w < kWarps; ++w) states[w] = meeting.states[w][head];
  // A part has a key at least, so that some warp has a maximum.
  Quarter merged{make_float4(0.0F, 0.0F, 0.0F, 0.0F), states[0].x, 0.0F};
#pragma unroll
  for (int w = 1; w < kWarps; ++w) merged.maximum = fmaxf(merged.maximum, states[w].x);
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    const float weight = exp2_approx(states[w].x - merged.maximum);
    const float4 value =
        *reinterpret_cast<const float4*>(sums + (w * gqa + head) * head_pitch<D>() + d);
    merged.out.x = fmaf(weight, value.x, merged.out.x);
    merged.out.y = fmaf(weight, value.y, merged.out.y);
    merged.out.z = fmaf(weight, value.z, merged.out.z);
    merged.out.w = fmaf(weight, value.w, merged.out.w);
    merged.sum = fmaf(weight, states[w].y, merged.sum);
  }
  return merged;
}

/// Ends a part: all computing warps, each with its sums of it. `shared`: as Meeting says. `turn`:
/// how often this has been called before (mod 2).
template <int D, bool kFp8>
__device__ __forceinline__ void end_part(const AttentionCall& call, const DecodeRun& run, int part,
                                         Sums<D>& sums, Fold<D>& fold, Meeting& meeting,
                                         float* shared, std::uint32_t turn, int warp, int lane) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int d = 4; d < 32; d *= 2) sums.sum[h] += __shfl_xor_sync(kFullMask, sums.sum[h], d);
  }
  // All have read the sums of the part before.
  hopper::barrier_wait(&meeting.taken, turn ^ 1);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int head = lane % 4 * 2 + h;
    if (head >= call.gqa) continue;
    float* own = shared + (warp * call.gqa + head) * head_pitch<D>() + lane / 4 * (kFp8 ? 2 : 1);
#pragma unroll
    for (int j = 0; j < D / 16; ++j) {
      own[16 * j] = sums.out[j][h];
      own[16 * j + (kFp8 ? 1 : 8)] = sums.out[j][2 + h];
    }
    if (lane / 4 == 0) meeting.states[warp][head] = make_float2(sums.maximum[h], sums.sum[h]);
  }
  sync_computing();
  for_quarters<D>(call.gqa, [&](int i, int head, int d) {
    const Quarter merged = merge_warps<D>(meeting, shared, call.gqa, head, d);
    if (part == 0) {
      fold.quarters[i] = merged;
    } else if (run.first == 0) {
      fold_in(fold.quarters[i], merged);
    } else {
      leave<D>(call, run, head, d, part, merged);
    }
  });
  __syncwarp();
  if (lane == 0) hopper::barrier_arrive(&meeting.taken);
}

/// Counts up to `last`, which leaves 0 for the next kernel, and returns whether this one was. What
/// the block wrote before is there for those who arrive later, and what those wrote who arrived
/// before is there for this one; both for the whole block, if it meets before and after.
__device__ __forceinline__ bool arrive(unsigned* count, unsigned last) {
  unsigned before;
  asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(count), "r"(last)
               : "memory");
  return before == last;
}

/// Ends a run, after its last part, and the row where it is the last to arrive.
template <int D>
__device__ __forceinline__ void end_run(const AttentionCall& call, const DecodeRun& run,
                                        const Fold<D>& fold, Meeting& meeting) {
  if (run.runs == 1) {
    for_quarters<D>(call.gqa, [&](int i, int head, int d) {
      store_out<D>(call, run, head, d, fold.quarters[i]);
    });
    return;
  }
  if (run.first == 0) {
    for_quarters<D>(call.gqa, [&](int i, int head, int d) {
      leave<D>(call, run, head, d, 0, fold.quarters[i]);
    });
  }
  sync_computing();
  if (threadIdx.x == 0) {
    meeting.last =
        arrive(call.workspace.arrived + run.slice * call.kv_heads + run.kv_head, run.runs - 1U);
  }
  sync_computing();
  if (!meeting.last) return;
  const int count = (run.position + run.part_keys) / run.part_keys;
  for_quarters<D>(call.gqa, [&](int, int head, int d) {
    const std::int64_t slot = slot_of(call, run, head, 0);
    Quarter whole = pick_up<D>(call, slot, d);
    for (int part = run.prefix; part < count; part += kPickedUp) {
      Quarter next[kPickedUp];
#pragma unroll
      for (int i = 0; i < kPickedUp; ++i) {
        next[i] = pick_up<D>(call, slot + min(part + i, count - 1), d);
      }
#pragma unroll
      for (int i = 0; i < kPickedUp; ++i) {
        // Chosen afterwards: branches would make each fold wait for the one before.
        Quarter folded = whole;
        fold_in(folded, next[i]);
        whole = part + i < count ? folded : whole;
      }
    }
    store_out<D>(call, run, head, d, whole);
  });
}

}  // namespace mobius::decode
