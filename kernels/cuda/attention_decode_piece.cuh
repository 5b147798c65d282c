#pragma once

#include "kernels/cuda/attention_decode_copy.cuh"

// Decode under full attention: what a computing warp does with a piece of 64 tokens. Warp w has
// tokens 2 w and 2 w + 1 of every group of 8: those are the 16 rows of
//
//   scores [16 tokens, 8 heads]  = keys [16, D] * queries [D, 8]          (tokens: first all 2 w)
//   out    [D, 8 heads]         += values^T [D, 16] * probabilities [16, 8]
//
// with mma.sync.m16n8k16. Heads that a group does not have are zero.

namespace mobius::decode {

__device__ __forceinline__ void load_transposed_x4(std::uint32_t (&to)[4], std::uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from));
}

/// Of an 8 x 8 matrix of which each lane holds two neighbours in a row.
__device__ __forceinline__ std::uint32_t transposed(std::uint32_t pair) {
  std::uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
  return result;
}

/// The query heads of a run's KV head as the n side of a product: lane / 4 is the head. Dimensions
/// are in the order of the other side's: where that is made of codes, a lane's four neighbours are
/// the first and third, and the second and fourth.
template <int D, bool kFp8>
struct Queries {
  std::uint32_t b[D / 16][2];

  __device__ void load(const AttentionCall& call, const DecodeRun& run, int lane) {
    const int head = lane / 4;
    const std::uint16_t* from =
        call.q + (std::int64_t{run.row} * call.heads + run.kv_head * call.gqa + head) * D +
        lane % 4 * (kFp8 ? 4 : 2);
#pragma unroll
    for (int j = 0; j < D / 16; ++j) {
      if constexpr (kFp8) {
        uint2 four = make_uint2(0, 0);
        if (head < call.gqa) four = *reinterpret_cast<const uint2*>(from + 16 * j);
        b[j][0] = __byte_perm(four.x, four.y, 0x5410);
        b[j][1] = __byte_perm(four.x, four.y, 0x7632);
      } else {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          b[j][half] = head < call.gqa
                           ? *reinterpret_cast<const std::uint32_t*>(from + 16 * j + 8 * half)
                           : 0;
        }
      }
    }
  }
};

/// What a warp has summed up: dimensions 16 j + lane / 4 and 8 more (fp8: 16 j + 2 (lane / 4) and
/// the next), heads 2 (lane % 4) and the next. Maxima are in units of log2; sums are this lane's
/// share.
template <int D>
struct Sums {
  float out[D / 16][4];
  float maximum[2];
  float sum[2];

  __device__ void clear() {
#pragma unroll
    for (auto& tile : out) tile[0] = tile[1] = tile[2] = tile[3] = 0.0F;
    maximum[0] = maximum[1] = -INFINITY;
    sum[0] = sum[1] = 0.0F;
  }

  /// Turns scores (tokens lane / 4 of the even and odd tokens, this lane's heads), those of
  /// kCount products, into the n sides of the products with values.
  template <int kCount>
  __device__ void weigh(float (&score)[kCount][4], std::uint32_t (&probabilities)[kCount][2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float best = fmaxf(score[0][h], score[0][2 + h]);
#pragma unroll
      for (int m = 1; m < kCount; ++m) best = fmaxf(best, fmaxf(score[m][h], score[m][2 + h]));
#pragma unroll
      for (int d = 4; d < 32; d *= 2) best = fmaxf(best, __shfl_xor_sync(kFullMask, best, d));
      best = fmaxf(best, maximum[h]);
      const float shift = best == -INFINITY ? 0.0F : best;
      const float rescale = exp2_approx(maximum[h] - shift);
      maximum[h] = best;
      sum[h] *= rescale;
#pragma unroll
      for (auto& tile : out) {
        tile[h] *= rescale;
        tile[2 + h] *= rescale;
      }
#pragma unroll
      for (int m = 0; m < kCount; ++m) {
        score[m][h] = exp2_approx(score[m][h] - shift);
        score[m][2 + h] = exp2_approx(score[m][2 + h] - shift);
      }
    }
#pragma unroll
    for (int m = 0; m < kCount; ++m) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const std::uint32_t pair = pack_bf16(score[m][2 * i], score[m][2 * i + 1]);
        sum[0] += low_bf16(pair);
        sum[1] += high_bf16(pair);
        probabilities[m][i] = transposed(pair);
      }
    }
  }
};

/// Adds a piece's 16 tokens of this warp. `key`: the piece's first; tokens at `end` and after are
/// not there.
template <int D>
__device__ __forceinline__ void attend(Sums<D>& sums, const Queries<D, false>& queries, Ring& ring,
                                       int key, int end, int warp, int lane) {
  constexpr int kGroup = kGroupTokens<false>;
  const int token = key + 2 * warp;
  const float scale = softmax_scale<D>();
  constexpr std::uint32_t kPitch = group_pitch<D>();
  const auto release = [&] {
    __syncwarp();
    if (lane == 0) hopper::barrier_arrive(ring.empty + ring.slot.index);
    ring.slot.next(kStages<D>);
  };
  // Lanes' rows for ldmatrix: the group, which of the two tokens, which 8 of 16 dimensions.
  const auto lane_row = [&](int second, int half) {
    return static_cast<std::uint32_t>(lane % 8) * kPitch +
           static_cast<std::uint32_t>((2 * warp + second) * D * 2 + half * 16);
  };

  hopper::barrier_wait(ring.full + ring.slot.index, ring.slot.turn);
  __syncwarp();
  float chains[2][4] = {};
  const std::uint32_t keys = ring.stage<D>() + lane_row(lane / 8 % 2, lane / 16);
#pragma unroll
  for (int j = 0; j < D / 16; ++j) {
    std::uint32_t a[4];
    matvec::load_matrix_x4(a, keys + static_cast<std::uint32_t>(j) * 32);
    matvec::multiply_add(chains[j % 2], a, queries.b[j][0], queries.b[j][1]);
  }
  release();
  float score[1][4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool there = token + lane / 4 * kGroup + i / 2 < end;
    score[0][i] = there ? (chains[0][i] + chains[1][i]) * scale : -INFINITY;
  }
  std::uint32_t probabilities[1][2];
  sums.weigh(score, probabilities);

  hopper::barrier_wait(ring.full + ring.slot.index, ring.slot.turn);
  __syncwarp();
  // What lies where no token is may be NaN: the tokens of groups 2 (lane % 4) and the next.
  std::uint32_t there[2];
#pragma unroll
  for (int second = 0; second < 2; ++second) {
    const int first = token + lane % 4 * 2 * kGroup + second;
    there[second] = (first < end ? 0x0000ffffU : 0U) | (first + kGroup < end ? 0xffff0000U : 0U);
  }
  const std::uint32_t values = ring.stage<D>() + lane_row(lane / 16, lane / 8 % 2);
#pragma unroll
  for (int j = 0; j < D / 16; ++j) {
    std::uint32_t a[4];
    load_transposed_x4(a, values + static_cast<std::uint32_t>(j) * 32);
    a[0] &= there[0];
    a[1] &= there[0];
    a[2] &= there[1];
    a[3] &= there[1];
    matvec::multiply_add(sums.out[j], a, probabilities[0][0], probabilities[0][1]);
  }
  release();
}

}  // namespace mobius::decode
