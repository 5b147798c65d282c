#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/hopper/launch.h"
#include "kernels/cuda/hopper/ptx.cuh"
#include "kernels/cuda/matvec_ptx.cuh"
#include "kernels/cuda/matvec_ring.cuh"

// The kernel of matvec.h and its launch, as templates: matvec.cu and matvec_fp8.cu choose among
// them, and tests/bench/gpu/matvec_times.cu times others beside those chosen.
//
// A warp owns a tile of weight rows and multiplies what the ring (matvec_ring.cuh) brings of it
// with all activations. Weights in e4m3 become bf16 between shared memory and tensor cores, and
// sums are multiplied with their row's scale at the end.
//
// The weight is on side m of the tensor cores' product. Codes can be on side n instead, for up to
// 16 rows: tiles of half the size, so twice as many warps, each with half the widening between two
// products of a chain.

namespace mobius::matvec {

// ---- consumers ----------------------------------------------------------------------------------

/// The weights of two steps of 16 columns: the tensor cores' operand of each.
template <Element kWeights>
struct Operands;

template <>
struct Operands<Element::bf16> {
  std::uint32_t at;

  __device__ __forceinline__ explicit Operands(std::uint32_t from) : at(from) {}
  __device__ __forceinline__ void step(std::uint32_t (&to)[4], int step) const {
    load_matrix_x4(to, at + static_cast<std::uint32_t>(step) * 32);
  }
};

/// Both steps are one load: 4 codes of each of two rows a step and lane.
template <>
struct Operands<Element::e4m3> {
  std::uint32_t codes[4];

  __device__ __forceinline__ explicit Operands(std::uint32_t from) { load_matrix_x4(codes, from); }
  __device__ __forceinline__ void step(std::uint32_t (&to)[4], int step) const {
    to[0] = widen_even(codes[2 * step]);
    to[1] = widen_even(codes[2 * step + 1]);
    to[2] = widen_odd(codes[2 * step]);
    to[3] = widen_odd(codes[2 * step + 1]);
  }
};

/// Two steps of 16 columns, or the first of them.
template <int kRowGroups, Element kWeights>
__device__ __forceinline__ void two_steps(float (&sums)[kRowGroups][4], std::uint32_t weights,
                                          const std::uint32_t (&activations)[kRowGroups],
                                          bool both) {
  std::uint32_t b[kRowGroups][4];
#pragma unroll
  for (int g = 0; g < kRowGroups; ++g) load_matrix_x4(b[g], activations[g]);
  const Operands<kWeights> operands(weights);
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    if (step == 1 && !both) break;
    std::uint32_t w[4];
    operands.step(w, step);
#pragma unroll
    for (int g = 0; g < kRowGroups; ++g) {
      multiply_add(sums[g], w, b[g][2 * step], b[g][2 * step + 1]);
    }
  }
}

__device__ __forceinline__ void store_sum(const Arguments& a, float sum, int row, int column) {
  const std::int64_t at = std::int64_t{row} * a.n + column;
  if (a.store == Store::bf16) {
    static_cast<std::uint16_t*>(a.out)[at] =
        static_cast<std::uint16_t>(hopper::pack_bf16(sum, 0.0F));
  } else {
    float* to = static_cast<float*>(a.out) + at;
    *to = a.store == Store::add ? sum + *to : sum;
  }
}

/// `scales`: of the lane's two columns of output. Powers of two, so that to multiply rounds nothing
/// and is 1 for bf16.
template <int kRowGroups, Element kWeights>
__device__ void store_sums(const Arguments& a, const float (&sums)[kRowGroups][4],
                           const float (&scales)[2], int tile, int lane) {
#pragma unroll
  for (int g = 0; g < kRowGroups; ++g) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = tile * tile_rows(Side::m) + lane / 4 + 8 * (i / 2);
      const int row = g * kGroupRows + 2 * (lane % 4) + i % 2;
      if (column >= a.n || row >= a.rows) continue;
      float sum = sums[g][i];
      if constexpr (kWeights == Element::e4m3) sum *= scales[i / 2];
      store_sum(a, sum, row, column);
    }
  }
}

template <int kTiles, int kColumns, int kRowGroups, Element kWeights>
__device__ void consume(const Arguments& a, const Work<kTiles, Side::m>& work,
                        const std::uint8_t* ring, std::uint64_t* full, std::uint64_t* empty,
                        int warp, int lane) {
  constexpr int kPairs = kColumns / 32;
  constexpr int kPairBytes = 32 * size_of(kWeights);
  // Conversions make the body of a pair twice as long.
  constexpr int kUnroll = kWeights == Element::bf16 ? 16 : 8;
  const int chunks = (a.k + kColumns - 1) / kColumns;
  // Lanes' rows and halves of rows as ldmatrix takes them. Rows that do not exist repeat the last.
  const std::uint32_t base = hopper::smem_address(ring);
  const std::uint32_t own_weights =
      base +
      static_cast<std::uint32_t>(
          (warp * tile_rows(Side::m) + lane % 16) * pitch<kColumns, kWeights>() + lane / 16 * 16);
  std::uint32_t own_activations[kRowGroups];
#pragma unroll
  for (int g = 0; g < kRowGroups; ++g) {
    const int row = min(g * kGroupRows + lane % 8, a.rows - 1);
    own_activations[g] = base + static_cast<std::uint32_t>(kTiles * tile_rows(Side::m) *
                                                               pitch<kColumns, kWeights>() +
                                                           row * pitch<kColumns>() + lane / 8 * 16);
  }
  // `out` may be what the kernel before reads or writes.
  hopper::wait_previous_kernel();
  Slot slot;
  for (int pass = 0; pass < work.passes; ++pass) {
    const int tile = work.begin(pass) + warp;
    const bool active = tile < work.begin(pass + 1);
    float sums[kRowGroups][4] = {};
    // Long before they are needed.
    float scales[2] = {1.0F, 1.0F};
    if constexpr (kWeights == Element::e4m3) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int column = tile * tile_rows(Side::m) + lane / 4 + 8 * i;
        if (active && column < a.n) scales[i] = __ldg(a.scales + column);
      }
    }
    for (int chunk = 0; chunk < chunks; ++chunk) {
      hopper::barrier_wait(full + slot.index, slot.turn);
      if (active) {
        const auto offset = static_cast<std::uint32_t>(
            slot.index * stage_bytes<kTiles, kColumns, kWeights>(a.rows));
        const std::uint32_t weights = own_weights + offset;
        std::uint32_t activations[kRowGroups];
#pragma unroll
        for (int g = 0; g < kRowGroups; ++g) activations[g] = own_activations[g] + offset;
        const auto at = [&](int pair, bool both) {
          std::uint32_t here[kRowGroups];
#pragma unroll
          for (int g = 0; g < kRowGroups; ++g) {
            here[g] = activations[g] + static_cast<std::uint32_t>(pair) * 64;
          }
          two_steps<kRowGroups, kWeights>(
              sums, weights + static_cast<std::uint32_t>(pair * kPairBytes), here, both);
        };
        const int steps = (a.k - chunk * kColumns) / 16;
        if (steps >= 2 * kPairs) {
#pragma unroll kUnroll
          for (int pair = 0; pair < kPairs; ++pair) at(pair, true);
        } else {
          for (int pair = 0; 2 * pair < steps; ++pair) at(pair, 2 * pair + 1 < steps);
        }
      }
      __syncwarp();
      if (lane == 0) hopper::barrier_arrive(empty + slot.index);
      slot.next(a.stages);
    }
    if (active) store_sums<kRowGroups, kWeights>(a, sums, scales, tile, lane);
  }
}

/// What four steps of 16 columns multiply, with the weight on side n.
template <int kRowGroups>
struct FourSteps {
  static_assert(kRowGroups <= 2);
  std::uint32_t in[2][kRowGroups][4];
  std::uint32_t codes[4];

  __device__ __forceinline__ void load(std::uint32_t weights,
                                       const std::uint32_t (&activations)[kRowGroups],
                                       std::uint32_t offset, int quad) {
    const std::uint32_t at = offset + static_cast<std::uint32_t>(quad) * 64;
    load_matrix_x4(codes, weights + at);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int g = 0; g < kRowGroups; ++g) {
        load_matrix_x4(in[half][g],
                       activations[g] + at + static_cast<std::uint32_t>(quad + half) * 64);
      }
    }
  }

  /// Of the first `steps`.
  __device__ __forceinline__ void multiply(float (&sums)[4], int steps) const {
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      if (step >= steps) break;
      const auto& low = in[step / 2][0];
      const auto& high = in[step / 2][kRowGroups - 1];
      const int at = step % 2 * 2;
      const std::uint32_t rows[4] = {low[at], kRowGroups == 2 ? high[at] : 0, low[at + 1],
                                     kRowGroups == 2 ? high[at + 1] : 0};
      multiply_add(sums, rows, widen_even(codes[step]), widen_odd(codes[step]));
    }
  }
};

/// The same with the weight, which is in e4m3, on side n. Operands are loaded four steps ahead, the
/// next stage's before this one is left: there must be two at least.
template <int kTiles, int kColumns, int kRowGroups>
__device__ void consume_codes(const Arguments& a, const Work<kTiles, Side::n>& work,
                              const std::uint8_t* ring, std::uint64_t* full, std::uint64_t* empty,
                              int warp, int lane) {
  constexpr int kTileRows = tile_rows(Side::n);
  constexpr int kPitch = pitch<kColumns, Element::e4m3>();
  constexpr int kQuads = kColumns / 64;
  const int chunks = (a.k + kColumns - 1) / kColumns;
  const std::uint32_t base = hopper::smem_address(ring);
  const std::uint32_t weights =
      base + static_cast<std::uint32_t>((warp * kTileRows + lane % 8) * kPitch + lane / 8 * 16);
  std::uint32_t activations[kRowGroups];
#pragma unroll
  for (int g = 0; g < kRowGroups; ++g) {
    const int row = min(g * kGroupRows + lane % 8, a.rows - 1);
    activations[g] = base + static_cast<std::uint32_t>(kTiles * kTileRows * kPitch +
                                                       row * pitch<kColumns>() + lane / 8 * 16);
  }
  const auto offset = [&](const Slot& slot) {
    return static_cast<std::uint32_t>(
        slot.index * stage_bytes<kTiles, kColumns, Element::e4m3, Side::n>(a.rows));
  };
  // `out` may be what the kernel before reads or writes.
  hopper::wait_previous_kernel();
  Slot slot;
  for (int pass = 0; pass < work.passes; ++pass) {
    const int tile = work.begin(pass) + warp;
    const bool active = tile < work.begin(pass + 1);
    const int column = tile * kTileRows + 2 * (lane % 4);
    float sums[4] = {};
    // Long before they are needed.
    float scales[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      scales[i] = active && column + i < a.n ? __ldg(a.scales + column + i) : 0.0F;
    }
    FourSteps<kRowGroups> ahead;
    hopper::barrier_wait(full + slot.index, slot.turn);
    if (active) ahead.load(weights, activations, offset(slot), 0);
    for (int chunk = 0; chunk < chunks; ++chunk) {
      Slot next = slot;
      next.next(a.stages);
      const auto enter_next = [&] {
        if (chunk + 1 == chunks) return;
        hopper::barrier_wait(full + next.index, next.turn);
        if (active) ahead.load(weights, activations, offset(next), 0);
      };
      const int steps = (a.k - chunk * kColumns) / 16;
      if (!active) {
        enter_next();
      } else if (steps >= 4 * kQuads) {
#pragma unroll
        for (int quad = 0; quad < kQuads; ++quad) {
          const FourSteps<kRowGroups> now = ahead;
          if (quad + 1 < kQuads) {
            ahead.load(weights, activations, offset(slot), quad + 1);
          } else {
            enter_next();
          }
          now.multiply(sums, 4);
        }
      } else {  // the last
        for (int quad = 0; 4 * quad < steps; ++quad) {
          if (quad > 0) ahead.load(weights, activations, offset(slot), quad);
          ahead.multiply(sums, steps - 4 * quad);
        }
      }
      __syncwarp();
      if (lane == 0) hopper::barrier_arrive(empty + slot.index);
      slot = next;
    }
    if (!active) continue;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + 8 * (i / 2);
      if (row < a.rows && column + i % 2 < a.n) {
        store_sum(a, sums[i] * scales[i % 2], row, column + i % 2);
      }
    }
  }
}

template <int kTiles, int kColumns, int kRowGroups, Copy kCopy, Element kWeights, Side kSide>
__global__ void __launch_bounds__((kTiles + 1) * 32, 1)
    matvec_kernel(const __grid_constant__ Arguments a) {
  extern __shared__ __align__(128) std::uint8_t ring[];
  __shared__ std::uint64_t full[kMostStages];
  __shared__ std::uint64_t empty[kMostStages];
  // Through a shuffle, so that the compiler knows it to be the same in all lanes.
  const int warp = __shfl_sync(0xffffffffU, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < a.stages; ++i) {
      hopper::barrier_init(full + i, kCopy == Copy::bulk ? 1 : 33);
      hopper::barrier_init(empty + i, kTiles);
    }
    hopper::barrier_init_fence();
  }
  __syncthreads();
  // Whatever comes next may settle beside this; it waits for the results by itself.
  hopper::release_next_kernel();
  const Work<kTiles, kSide> work(a.n);
  if (warp == kTiles) {
    produce<kTiles, kColumns, kCopy, kWeights, kSide>(a, work, ring, full, empty, lane);
  } else if constexpr (kSide == Side::n) {
    static_assert(kWeights == Element::e4m3);
    consume_codes<kTiles, kColumns, kRowGroups>(a, work, ring, full, empty, warp, lane);
  } else {
    consume<kTiles, kColumns, kRowGroups, kWeights>(a, work, ring, full, empty, warp, lane);
  }
}

/// What a launch may choose besides the template's parameters.
struct Grid {
  int blocks = 0;       ///< at most one per tile
  int ring_bytes = 0;   ///< of shared memory, at most kMostRingBytes
  bool overlap = true;  ///< with the kernel before
};

/// What a block can have, less the barriers.
constexpr int kMostRingBytes = 227 * 1024 - 2 * kMostStages * 8;

/// Enqueues the kernel. `a.stages` is filled in here.
template <int kTiles, int kColumns, int kRowGroups, Copy kCopy, Element kWeights = Element::bf16,
          Side kSide = Side::m>
cudaError_t launch(Arguments a, const Grid& grid, cudaStream_t stream) {
  constexpr auto kernel = matvec_kernel<kTiles, kColumns, kRowGroups, kCopy, kWeights, kSide>;
  static const cudaError_t prepared =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMostRingBytes);
  if (prepared != cudaSuccess) return prepared;
  if (a.rows < 1 || a.rows > kRowGroups * kGroupRows) return cudaErrorInvalidValue;
  const int bytes = stage_bytes<kTiles, kColumns, kWeights, kSide>(a.rows);
  a.stages = std::min(grid.ring_bytes / bytes, kMostStages);
  if (a.stages < (kSide == Side::n ? 2 : 1)) return cudaErrorInvalidValue;
  const auto shared = static_cast<std::size_t>(a.stages) * static_cast<std::size_t>(bytes);
  const dim3 blocks(static_cast<unsigned>(grid.blocks));
  const dim3 threads((kTiles + 1) * 32);
  if (grid.overlap) {
    return hopper::launch_overlapped(kernel, blocks, threads, shared, stream, a);
  }
  kernel<<<blocks, threads, shared, stream>>>(a);
  return cudaGetLastError();
}

}  // namespace mobius::matvec
