#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/hopper/launch.h"
#include "kernels/cuda/hopper/ptx.cuh"
#include "kernels/cuda/matvec_ptx.cuh"

// The ring of matvec_kernel.cuh: what a block's copying warp brings into shared memory, and how.
//
// One block per multiprocessor owns consecutive tiles of weight rows, 16 or 8 of them (Side). In
// each pass over k, up to kTiles warps take one tile each; the last warp copies. A stage of the
// ring holds kColumns columns of all the pass's weight rows and of the activations:
//
//   weights [tile * kTiles][kColumns]   activations [rows][kColumns]   (rows 16 bytes more apart
//                                                                       than they are long: no bank
//                                                                       conflicts)

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

/// The weight's side of the tensor cores' product, m or n. The activations have the other.
enum class Side : std::uint8_t { m, n };

/// Weight rows of a warp's tile.
constexpr int tile_rows(Side side) {
  return side == Side::m ? 16 : 8;
}

/// Rows of activations that are loaded at once.
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

template <int kTiles, int kColumns, Element kWeights = Element::bf16, Side kSide = Side::m>
constexpr int stage_bytes(int rows) {
  return kTiles * tile_rows(kSide) * pitch<kColumns, kWeights>() + rows * pitch<kColumns>();
}

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
template <int kTiles, Side kSide>
struct Work {
  int first;
  int count;
  int passes;

  __device__ explicit Work(int n) {
    const int tiles = (n + tile_rows(kSide) - 1) / tile_rows(kSide);
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
template <int kTiles, int kColumns, Copy kCopy, Element kWeights, Side kSide>
struct Producer {
  static_assert(kCopy == Copy::bulk || kWeights == Element::bf16);
  using Stored = std::conditional_t<kWeights == Element::bf16, std::uint16_t, std::uint8_t>;

  const Arguments& a;
  const Work<kTiles, kSide>& work;
  std::uint8_t* ring;
  std::uint64_t* full;
  int lane;
  std::uint64_t policy;

  __device__ std::uint32_t stage(int index) const {
    return hopper::smem_address(ring) +
           static_cast<std::uint32_t>(index *
                                      stage_bytes<kTiles, kColumns, kWeights, kSide>(a.rows));
  }
  __device__ int columns(int chunk) const { return min(kColumns, a.k - chunk * kColumns); }

  /// The whole stage is announced; its activations may follow later.
  __device__ void weights(int pass, int chunk, int index) const {
    const int begin = work.begin(pass) * tile_rows(kSide);
    const int rows = min(work.begin(pass + 1) * tile_rows(kSide), a.n) - begin;
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
    std::uint32_t to = stage(index) + static_cast<std::uint32_t>(kTiles * tile_rows(kSide) *
                                                                 pitch<kColumns, kWeights>());
    for (int row = 0; row < a.rows; ++row) {
      copy_bulk(to, from, static_cast<std::uint32_t>(columns(chunk) * 2), full + index);
      from += a.k;
      to += pitch<kColumns>();
    }
  }
};

template <int kTiles, int kColumns, Copy kCopy, Element kWeights, Side kSide>
__device__ void produce(const Arguments& a, const Work<kTiles, kSide>& work, std::uint8_t* ring,
                        std::uint64_t* full, std::uint64_t* empty, int lane) {
  const Producer<kTiles, kColumns, kCopy, kWeights, kSide> copies{a,    work, ring,
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

}  // namespace mobius::matvec
