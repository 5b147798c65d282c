#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/hopper/launch.h"
#include "kernels/cuda/hopper/ptx.cuh"

// The kernel of matvec.h and its launch, as templates: matvec.cu and matvec_fp8.cu choose among
// them, and tests/bench/gpu/matvec_times.cu times others beside those chosen.
//
// One block per multiprocessor owns consecutive tiles of 16 weight rows. In each pass over k, up to
// kTiles warps take one tile each; the last warp copies. A stage of the ring holds kColumns columns
// of all the pass's weight rows and of the activations:
//
//   weights [16 * kTiles][kColumns]   activations [rows][kColumns]   (rows 16 bytes more apart than
//                                                                     they are long: no bank
//                                                                     conflicts)
//
// The weight is the m side of the tensor cores' product, the activations are its n side. Weights in
// e4m3 become bf16 between shared memory and tensor cores, and sums are multiplied with their row's
// scale at the end.

namespace mobius::matvec {

/// How weights get into shared memory: bulk copies of a row's part each, or 16 bytes a thread.
enum class Copy : std::uint8_t { bulk, vector };

/// Of the weights, as they lie in memory.
enum class Element : std::uint8_t { bf16, e4m3 };

constexpr int size_of(Element element) {
  return element == Element::bf16 ? 2 : 1;
}

/// What becomes of a sum.
enum class Store : std::uint8_t { f32, add, bf16 };

struct Arguments {
  const void* weight = nullptr;       ///< [n, k]
  const float* scales = nullptr;      ///< [n], of weights in e4m3
  const std::uint16_t* in = nullptr;  ///< [rows, k]
  void* out = nullptr;                ///< [rows, n]
  std::int32_t rows = 0;
  std::int32_t n = 0;
  std::int32_t k = 0;  ///< a multiple of 16
  std::int32_t stages = 0;
  Store store = Store::f32;
};

constexpr int kTileRows = 16;
/// Rows of activations in one tensor-core product.
constexpr int kGroupRows = 8;
constexpr int kMostStages = 32;
/// Of n and k.
constexpr int kMostSize = 1 << 24;

/// Bytes from a row of a stage to the next.
template <int kColumns, Element kElement = Element::bf16>
constexpr int pitch() {
  static_assert(kColumns * size_of(kElement) % 128 == 0);
  return kColumns * size_of(kElement) + 16;
}

template <int kTiles, int kColumns, Element kWeights = Element::bf16>
constexpr int stage_bytes(int rows) {
  return kTiles * kTileRows * pitch<kColumns, kWeights>() + rows * pitch<kColumns>();
}

// ---- instructions -------------------------------------------------------------------------------

/// For data that is read once: the first to leave the L2 cache.
__device__ __forceinline__ std::uint64_t evict_first_policy() {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// A warp's, carried out by one lane. The lane is chosen inside the instruction, because in a branch
// that one lane takes the compiler cannot use uniform registers, which bulk copies take their
// operands from, and makes a loop of every copy (45 cycles instead of 4).

__device__ __forceinline__ void announce(std::uint64_t* bar, std::uint32_t bytes) {
  asm volatile(
      "{\n.reg .pred chosen;\nelect.sync _|chosen, 0xffffffff;\n"
      "@chosen mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n}" ::"r"(
          hopper::smem_address(bar)),
      "r"(bytes)
      : "memory");
}

__device__ __forceinline__ void copy_bulk(std::uint32_t to, const void* from, std::uint32_t bytes,
                                          std::uint64_t* bar) {
  asm volatile(
      "{\n.reg .pred chosen;\nelect.sync _|chosen, 0xffffffff;\n"
      "@chosen cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1], %2, [%3];\n}" ::"r"(to),
      "l"(from), "r"(bytes), "r"(hopper::smem_address(bar))
      : "memory");
}

__device__ __forceinline__ void copy_bulk(std::uint32_t to, const void* from, std::uint32_t bytes,
                                          std::uint64_t* bar, std::uint64_t policy) {
  asm volatile(
      "{\n.reg .pred chosen;\nelect.sync _|chosen, 0xffffffff;\n"
      "@chosen cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1], %2, [%3], %4;\n}" ::"r"(to),
      "l"(from), "r"(bytes), "r"(hopper::smem_address(bar)), "l"(policy)
      : "memory");
}

// Each thread's.

__device__ __forceinline__ void copy_vector(std::uint32_t to, const void* from,
                                            std::uint64_t policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "l"(policy)
               : "memory");
}

/// Arrives on `bar` when all copies that this thread has started with copy_vector are there.
__device__ __forceinline__ void arrive_with_copies(std::uint64_t* bar) {
  asm volatile(
      "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(hopper::smem_address(bar))
      : "memory");
}

__device__ __forceinline__ void load_matrix_x4(std::uint32_t (&to)[4], std::uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from));
}

/// c[16, 8] += a[16, 16] * b[16, 8].
__device__ __forceinline__ void multiply_add(float (&c)[4], const std::uint32_t (&a)[4],
                                             std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- the kernel ---------------------------------------------------------------------------------

/// A place in the ring, and how often it has been reached before (mod 2).
struct Slot {
  int index = 0;
  std::uint32_t turn = 0;

  __device__ void next(int stages) {
    if (++index < stages) return;
    index = 0;
    turn ^= 1;
  }
};

/// The tiles of this block, cut into passes of nearly equal size. With up to kMostSize rows no
/// number here passes 31 bits.
template <int kTiles>
struct Work {
  int first;
  int count;
  int passes;

  __device__ explicit Work(int n) {
    const int tiles = (n + kTileRows - 1) / kTileRows;
    first = begin_of(tiles, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
    count = begin_of(tiles, static_cast<int>(blockIdx.x) + 1, static_cast<int>(gridDim.x)) - first;
    passes = (count + kTiles - 1) / kTiles;
  }
  __device__ int begin(int pass) const { return first + begin_of(count, pass, passes); }

 private:
  __device__ static int begin_of(int all, int part, int parts) {
    return static_cast<int>(static_cast<unsigned>(all * part) / static_cast<unsigned>(parts));
  }
};

/// Copies stages, one after the other.
template <int kTiles, int kColumns, Copy kCopy, Element kWeights>
struct Producer {
  static_assert(kCopy == Copy::bulk || kWeights == Element::bf16);
  using Stored = std::conditional_t<kWeights == Element::bf16, std::uint16_t, std::uint8_t>;

  const Arguments& a;
  const Work<kTiles>& work;
  std::uint8_t* ring;
  std::uint64_t* full;
  int lane;
  std::uint64_t policy;

  __device__ std::uint32_t stage(int index) const {
    return hopper::smem_address(ring) +
           static_cast<std::uint32_t>(index * stage_bytes<kTiles, kColumns, kWeights>(a.rows));
  }
  __device__ int columns(int chunk) const { return min(kColumns, a.k - chunk * kColumns); }

  /// The whole stage is announced; its activations may follow later.
  __device__ void weights(int pass, int chunk, int index) const {
    const int begin = work.begin(pass) * kTileRows;
    const int rows = min(work.begin(pass + 1) * kTileRows, a.n) - begin;
    const int bytes = columns(chunk) * static_cast<int>(sizeof(Stored));
    const int announced = (kCopy == Copy::bulk ? rows * bytes : 0) + a.rows * columns(chunk) * 2;
    announce(full + index, static_cast<std::uint32_t>(announced));
    const Stored* from =
        static_cast<const Stored*>(a.weight) + std::int64_t{begin} * a.k + chunk * kColumns;
    std::uint32_t to = stage(index);
    if constexpr (kCopy == Copy::bulk) {
#pragma unroll 4
      for (int row = 0; row < rows; ++row) {
        copy_bulk(to, from, static_cast<std::uint32_t>(bytes), full + index, policy);
        from += a.k;
        to += pitch<kColumns, kWeights>();
      }
    } else {
      constexpr int kVectors = kColumns / 8;
#pragma unroll 8
      for (int at = lane; at < rows * kVectors; at += 32) {
        const int row = at / kVectors;
        const int vector = at % kVectors;
        if (vector * 16 < bytes) {
          copy_vector(to + static_cast<std::uint32_t>(row * pitch<kColumns>() + vector * 16),
                      from + std::int64_t{row} * a.k + vector * 8, policy);
        }
      }
      arrive_with_copies(full + index);
    }
  }

  __device__ void activations(int chunk, int index) const {
    const std::uint16_t* from = a.in + chunk * kColumns;
    std::uint32_t to =
        stage(index) + static_cast<std::uint32_t>(kTiles * kTileRows * pitch<kColumns, kWeights>());
    for (int row = 0; row < a.rows; ++row) {
      copy_bulk(to, from, static_cast<std::uint32_t>(columns(chunk) * 2), full + index);
      from += a.k;
      to += pitch<kColumns>();
    }
  }
};

template <int kTiles, int kColumns, Copy kCopy, Element kWeights>
__device__ void produce(const Arguments& a, const Work<kTiles>& work, std::uint8_t* ring,
                        std::uint64_t* full, std::uint64_t* empty, int lane) {
  const Producer<kTiles, kColumns, kCopy, kWeights> copies{a,    work, ring,
                                                           full, lane, evict_first_policy()};
  const int chunks = (a.k + kColumns - 1) / kColumns;
  const int total = work.passes * chunks;
  const int ahead = min(total, a.stages);
  // The weight does not hang on the kernel before; the activations do.
  for (int i = 0; i < ahead; ++i) copies.weights(i / chunks, i % chunks, i);
  hopper::wait_previous_kernel();
  for (int i = 0; i < ahead; ++i) copies.activations(i % chunks, i);
  Slot slot;
  for (int i = ahead; i < total; ++i) {
    hopper::barrier_wait(empty + slot.index, slot.turn);
    __syncwarp();
    copies.weights(i / chunks, i % chunks, slot.index);
    copies.activations(i % chunks, slot.index);
    slot.next(a.stages);
  }
  if constexpr (kCopy == Copy::vector) asm volatile("cp.async.wait_all;" ::: "memory");
}

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

/// `scales`: of the lane's two columns of output. Powers of two, so that to multiply rounds nothing
/// and is 1 for bf16.
template <int kRowGroups, Element kWeights>
__device__ void store_sums(const Arguments& a, const float (&sums)[kRowGroups][4],
                           const float (&scales)[2], int tile, int lane) {
#pragma unroll
  for (int g = 0; g < kRowGroups; ++g) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = tile * kTileRows + lane / 4 + 8 * (i / 2);
      const int row = g * kGroupRows + 2 * (lane % 4) + i % 2;
      if (column >= a.n || row >= a.rows) continue;
      const std::int64_t at = std::int64_t{row} * a.n + column;
      float sum = sums[g][i];
      if constexpr (kWeights == Element::e4m3) sum *= scales[i / 2];
      if (a.store == Store::bf16) {
        static_cast<std::uint16_t*>(a.out)[at] =
            static_cast<std::uint16_t>(hopper::pack_bf16(sum, 0.0F));
      } else {
        float* to = static_cast<float*>(a.out) + at;
        *to = a.store == Store::add ? sum + *to : sum;
      }
    }
  }
}

template <int kTiles, int kColumns, int kRowGroups, Element kWeights>
__device__ void consume(const Arguments& a, const Work<kTiles>& work, const std::uint8_t* ring,
                        std::uint64_t* full, std::uint64_t* empty, int warp, int lane) {
  constexpr int kPairs = kColumns / 32;
  constexpr int kPairBytes = 32 * size_of(kWeights);
  // Conversions make the body of a pair twice as long.
  constexpr int kUnroll = kWeights == Element::bf16 ? 16 : 8;
  const int chunks = (a.k + kColumns - 1) / kColumns;
  // Lanes' rows and halves of rows as ldmatrix takes them. Rows that do not exist repeat the last.
  const std::uint32_t base = hopper::smem_address(ring);
  const std::uint32_t own_weights =
      base + static_cast<std::uint32_t>(
                 (warp * kTileRows + lane % 16) * pitch<kColumns, kWeights>() + lane / 16 * 16);
  std::uint32_t own_activations[kRowGroups];
#pragma unroll
  for (int g = 0; g < kRowGroups; ++g) {
    const int row = min(g * kGroupRows + lane % 8, a.rows - 1);
    own_activations[g] =
        base + static_cast<std::uint32_t>(kTiles * kTileRows * pitch<kColumns, kWeights>() +
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
        const int column = tile * kTileRows + lane / 4 + 8 * i;
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

template <int kTiles, int kColumns, int kRowGroups, Copy kCopy, Element kWeights>
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
  const Work<kTiles> work(a.n);
  if (warp == kTiles) {
    produce<kTiles, kColumns, kCopy, kWeights>(a, work, ring, full, empty, lane);
  } else {
    consume<kTiles, kColumns, kRowGroups, kWeights>(a, work, ring, full, empty, warp, lane);
  }
}

/// What a launch may choose besides the template's parameters.
struct Grid {
  int blocks = 0;       ///< at most one per tile of 16 weight rows
  int ring_bytes = 0;   ///< of shared memory, at most kMostRingBytes
  bool overlap = true;  ///< with the kernel before
};

/// What a block can have, less the barriers.
constexpr int kMostRingBytes = 227 * 1024 - 2 * kMostStages * 8;

/// Enqueues the kernel. `a.stages` is filled in here.
template <int kTiles, int kColumns, int kRowGroups, Copy kCopy, Element kWeights = Element::bf16>
cudaError_t launch(Arguments a, const Grid& grid, cudaStream_t stream) {
  constexpr auto kernel = matvec_kernel<kTiles, kColumns, kRowGroups, kCopy, kWeights>;
  static const cudaError_t prepared =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMostRingBytes);
  if (prepared != cudaSuccess) return prepared;
  if (a.rows < 1 || a.rows > kRowGroups * kGroupRows) return cudaErrorInvalidValue;
  const int bytes = stage_bytes<kTiles, kColumns, kWeights>(a.rows);
  a.stages = std::min(grid.ring_bytes / bytes, kMostStages);
  if (a.stages < 1) return cudaErrorInvalidValue;
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
