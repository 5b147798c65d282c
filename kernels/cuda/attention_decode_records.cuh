#pragma once

#include "kernels/cuda/attention_decode_piece.cuh"
#include "kernels/cuda/fp8.cuh"

// Decode under full attention from an fp8 cache: what a computing warp does with a piece of 128
// tokens. Warp w has tokens 4 w to 4 w + 3 of every record of 16, in two products of 16 rows, each
// as in attention_decode_piece.cuh: the first has 4 w and 4 w + 1 of all records, the second the
// others.
//
// Codes become bf16 in registers, without their scales, which are powers of two: a key's multiplies
// the score, a value's the probability, and neither rounds. What ldmatrix hands out as one number
// of 16 bits is two codes here:
//
//   keys    a lane has 4 neighbouring dimensions of a token, of which the first and third make one
//           register of a product, and the second and fourth another (Queries has them likewise)
//   values  transposed, a lane has 2 neighbouring dimensions of 2 tokens: rows lane / 4 of a
//   product
//           are the even dimensions, the 8 rows after them the odd ones

namespace mobius::decode {

__device__ __forceinline__ std::uint32_t load_word(std::uint32_t from) {
  std::uint32_t word;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(from));
  return word;
}

/// As the other `attend`, 32 tokens.
template <int D>
__device__ __forceinline__ void attend(Sums<D>& sums, const Queries<D, true>& queries, Ring& ring,
                                       int key, int end, int warp, int lane) {
  constexpr int kGroup = kGroupTokens<true>;
  constexpr int kProducts = 2;
  constexpr std::uint32_t kPitch = group_pitch<D>();
  const float scale = softmax_scale<D>();
  const int token = key + 4 * warp;
  const auto release = [&] {
    __syncwarp();
    if (lane == 0) hopper::barrier_arrive(ring.empty + ring.slot.index);
    ring.slot.next(kStages<D>);
  };
  // Lanes' rows for ldmatrix: the record, which token of a product's two, which 16 of 32 codes.
  const auto lane_row = [&](int second, int half) {
    return static_cast<std::uint32_t>(lane % 8) * kPitch +
           static_cast<std::uint32_t>((4 * warp + second) * D + half * 16);
  };
  /// Scale bytes of this warp's four tokens of a record.
  const auto scales_of = [&](int record) {
    return load_word(ring.stage<D>() + static_cast<std::uint32_t>(record) * kPitch +
                     static_cast<std::uint32_t>(kGroup * D + 4 * warp));
  };

  hopper::barrier_wait(ring.full + ring.slot.index, ring.slot.turn);
  __syncwarp();
  const std::uint32_t key_scales = scales_of(lane / 4);
  const std::uint32_t keys = ring.stage<D>() + lane_row(lane / 8 % 2, lane / 16);
  float chains[kProducts][2][4] = {};
#pragma unroll
  for (int j = 0; j < D / 32; ++j) {
#pragma unroll
    for (int m = 0; m < kProducts; ++m) {
      std::uint32_t codes[4];
      matvec::load_matrix_x4(codes, keys + static_cast<std::uint32_t>(2 * m * D + 32 * j));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const std::uint32_t a[4] = {widen_even(codes[2 * half]), widen_even(codes[2 * half + 1]),
                                    widen_odd(codes[2 * half]), widen_odd(codes[2 * half + 1])};
        matvec::multiply_add(chains[m][half], a, queries.b[2 * j + half][0],
                             queries.b[2 * j + half][1]);
      }
    }
  }
  release();
  float score[kProducts][4];
#pragma unroll
  for (int m = 0; m < kProducts; ++m) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int own = 2 * m + i / 2;
      const bool there = token + lane / 4 * kGroup + own < end;
      const float own_scale = scale_f32(key_scales >> (8 * own) & 0xffU);
      score[m][i] = there ? (chains[m][0][i] + chains[m][1][i]) * own_scale * scale : -INFINITY;
    }
  }
  std::uint32_t probabilities[kProducts][2];
  sums.weigh(score, probabilities);

  hopper::barrier_wait(ring.full + ring.slot.index, ring.slot.turn);
  __syncwarp();
  // The tokens of records 2 (lane % 4) and the next. What lies where no token is may be NaN, and so
  // may its scale.
  std::uint32_t there[kProducts][2];
  const std::uint32_t first_scales = scales_of(lane % 4 * 2);
  const std::uint32_t second_scales = scales_of(lane % 4 * 2 + 1);
#pragma unroll
  for (int m = 0; m < kProducts; ++m) {
#pragma unroll
    for (int second = 0; second < 2; ++second) {
      const int own = 2 * m + second;
      const int first = token + lane % 4 * 2 * kGroup + own;
      there[m][second] =
          (first < end ? 0x0000ffffU : 0U) | (first + kGroup < end ? 0xffff0000U : 0U);
      const std::uint32_t pair =
          (first_scales >> (8 * own) & 0xffU) << 7 | (second_scales >> (8 * own) & 0xffU) << 23;
      probabilities[m][second] = multiply_bf16x2(probabilities[m][second], pair & there[m][second]);
    }
  }
  const std::uint32_t values = ring.stage<D>() + lane_row(lane / 16, lane / 8 % 2);
#pragma unroll
  for (int j = 0; j < D / 32; ++j) {
#pragma unroll
    for (int m = 0; m < kProducts; ++m) {
      std::uint32_t codes[4];
      load_transposed_x4(codes, values + static_cast<std::uint32_t>(2 * m * D + 32 * j));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const std::uint32_t even = codes[half] & there[m][0];
        const std::uint32_t odd = codes[2 + half] & there[m][1];
        const std::uint32_t a[4] = {widen_even(even), widen_odd(even), widen_even(odd),
                                    widen_odd(odd)};
        matvec::multiply_add(sums.out[2 * j + half], a, probabilities[m][0], probabilities[m][1]);
      }
    }
  }
  release();
}

}  // namespace mobius::decode
