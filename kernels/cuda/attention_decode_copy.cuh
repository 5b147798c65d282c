#pragma once

#include <bit>

#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/matvec_ring.cuh"

// Decode under full attention: the ring that keys and values pass through, and the warp that copies
// them into it.
//
// A stage of the ring holds the keys of one piece of 64 tokens, the next stage their values. A
// piece is copied in 8 groups of 8 tokens, 16 bytes apart:
//
//   [group r][token i of 8][D]   groups 8 * D * 2 + 16 bytes apart
//
// so that the 8 rows of a matrix that ldmatrix takes, which are one token of each group, lie in
// different banks.
//
// Where the cache is fp8, a piece is 128 tokens in 8 groups of 16, which are the cache's records:
// as many bytes, since a group's scales fill the 16 bytes between groups.

namespace mobius::decode {

using hopper::exp2_approx;

constexpr int kWarps = 4;  ///< that compute
constexpr int kThreads = kWarps * 32;
constexpr int kMostHeads = 8;  ///< of a KV head
constexpr int kGroups = 8;
template <bool kFp8>
constexpr int kGroupTokens = kFp8 ? hopper::kRecordTokens : 8;
template <bool kFp8>
constexpr int kPieceTokens = kGroups* kGroupTokens<kFp8>;
static_assert(decode_unit(false) == kPieceTokens<false>);
static_assert(decode_unit(true) == kPieceTokens<true>);
static_assert(kMostDecodeParts <= kMaxSpans);
/// Of the ring, 128 KiB in all: more than half of a multiprocessor's, so that no two blocks settle
/// on one while another has none.
template <int D>
constexpr int kStages = 1024 / D;

template <int D, bool kFp8>
constexpr int group_bytes() {
  return kFp8 ? hopper::record_bytes(D) : kGroupTokens<kFp8> * D * 2;
}
template <int D>
constexpr int group_pitch() {
  return 16 * D + 16;
}
static_assert(group_pitch<128>() == group_bytes<128, true>());
static_assert(group_pitch<128>() == group_bytes<128, false>() + 16);
template <int D>
constexpr int stage_bytes() {
  return kGroups * group_pitch<D>();
}
/// The ring as a warp sees it.
struct Ring {
  std::uint32_t base;  ///< in shared memory
  std::uint64_t* full;
  std::uint64_t* empty;
  matvec::Slot slot;

  template <int D>
  __device__ std::uint32_t stage() const {
    return base + static_cast<std::uint32_t>(slot.index * stage_bytes<D>());
  }
};

/// The runs of this block that are under full attention at the layer. Each is on its way to
/// registers while the one before is worked on.
class Runs {
 public:
  __device__ explicit Runs(const AttentionCall& call)
      : call_(call),
        next_(__ldg(call.step.decode_block_runs + blockIdx.x)),
        end_(__ldg(call.step.decode_block_runs + blockIdx.x + 1)) {
    fetch();
  }

  /// Whether there is another one, which `run` then is.
  __device__ bool next(DecodeRun* run) {
    while (there_) {
      *run = ahead_;
      fetch();
      if (call_.layer >= run->full_from) return true;
    }
    return false;
  }

 private:
  struct Words {
    int4 low, high;
  };

  __device__ void fetch() {
    there_ = next_ < end_;
    if (!there_) return;
    const auto* from = reinterpret_cast<const int4*>(call_.step.decode_runs + next_++);
    ahead_ = std::bit_cast<DecodeRun>(Words{__ldg(from), __ldg(from + 1)});
  }

  const AttentionCall& call_;
  int next_;
  int end_;
  bool there_ = false;
  DecodeRun ahead_;
};

__device__ __forceinline__ int first_key(const DecodeRun& run) {
  return run.first * run.part_keys;
}
__device__ __forceinline__ int end_key(const DecodeRun& run) {
  return min(run.end * run.part_keys, run.position + 1);
}

/// Some pieces of a run: as many as have a lane for each group.
template <bool kFp8>
struct Stretch {
  static constexpr int kGroup = kGroupTokens<kFp8>;
  static constexpr int kTokens = 32 * kGroup;
  DecodeRun run;
  int key;
  int page;  ///< of this lane's group, or of the last one that is there

  __device__ void find(const AttentionCall& call, int lane) {
    page = __ldg(call.step.pages + std::int64_t{run.slice} * call.step.max_pages +
                 own_key(lane) / call.page_tokens);
  }
  /// Where the group lies, in groups, which 32 bits can count.
  __device__ int place(const AttentionCall& call, int lane) const {
    const int page_groups = call.page_tokens / kGroup;
    return (page * call.kv_heads + run.kv_head) * page_groups +
           own_key(lane) % call.page_tokens / kGroup;
  }

 private:
  // Pages are multiples of 16 tokens, parts begin at multiples of 64: a group lies in one page.
  __device__ int own_key(int lane) const {
    const int last = (end_key(run) - 1) / kGroup * kGroup;
    return min(key + lane * kGroup, last);
  }
};

/// The copying warp.
template <int D, bool kFp8>
__device__ void copy_runs(const AttentionCall& call, Ring ring, int lane) {
  constexpr int kGroup = kGroupTokens<kFp8>;
  constexpr int kPiece = kPieceTokens<kFp8>;
  constexpr int kBytes = group_bytes<D, kFp8>();
  const std::uint64_t policy = matvec::evict_first_policy();
  // A step with longer slices may append to pages that a slice of one row shares.
  bool waited = false;
  const auto wait = [&] {
    hopper::wait_previous_kernel();
    asm volatile("fence.proxy.async.global;" ::: "memory");
    waited = true;
  };
  if (!call.early_copies) wait();
  Runs runs(call);
  Stretch<kFp8> stretch;
  bool more = runs.next(&stretch.run);
  if (more) {
    stretch.key = first_key(stretch.run);
    stretch.find(call, lane);
  }
  while (more) {
    const int own_place = stretch.place(call, lane);
    const int position = stretch.run.position;
    const int begin = stretch.key;
    const int end = min(begin + Stretch<kFp8>::kTokens, end_key(stretch.run));
    // The pages of what comes next are on their way while this is copied.
    if (end < end_key(stretch.run)) {
      stretch.key = end;
    } else {
      more = runs.next(&stretch.run);
      stretch.key = first_key(stretch.run);
    }
    if (more) stretch.find(call, lane);
    for (int key = begin; key < end; key += kPiece) {
      const int groups = min(kGroups, (end - key + kGroup - 1) / kGroup);
      int places[kGroups];
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        places[group] = __shfl_sync(kFullMask, own_place, (key - begin) / kGroup + group);
      }
      if (!waited && key + kPiece > position) wait();
#pragma unroll
      for (int operand = 0; operand < 2; ++operand) {
        const auto* cells =
            reinterpret_cast<const std::uint8_t*>(operand == 0 ? call.keys : call.values);
        std::uint64_t* full = ring.full + ring.slot.index;
        hopper::barrier_wait(ring.empty + ring.slot.index, ring.slot.turn ^ 1);
        __syncwarp();
        matvec::announce(full, static_cast<std::uint32_t>(groups * kBytes));
        const std::uint32_t to = ring.stage<D>();
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          if (group >= groups) break;
          const std::uint8_t* from = cells + std::int64_t{places[group]} * kBytes;
          matvec::copy_bulk(to + static_cast<std::uint32_t>(group * group_pitch<D>()), from,
                            static_cast<std::uint32_t>(kBytes), full, policy);
        }
        ring.slot.next(kStages<D>);
      }
    }
  }
}

}  // namespace mobius::decode
