#pragma once

#include <stdexcept>
#include <string>

#include "kernels/cuda/check.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/matvec.h"
#include "kernels/cuda/matvec_kernel.cuh"

// What launches with weights of either type share.

namespace mobius::matvec {

/// Leaves shared memory for small kernels, so that the next ones can settle beside this one.
constexpr int kRingBytes = 208 * 1024;

inline Grid grid_of(const Arguments& a, Side side = Side::m) {
  const int tiles = (a.n + tile_rows(side) - 1) / tile_rows(side);
  return {.blocks = std::min(tiles, multiprocessors()), .ring_bytes = kRingBytes};
}

/// The most tiles that a block owns.
inline int tiles_each(const Arguments& a, const Grid& grid, Side side = Side::m) {
  const int tiles = (a.n + tile_rows(side) - 1) / tile_rows(side);
  return (tiles + grid.blocks - 1) / grid.blocks;
}

/// Throws std::invalid_argument where the kernel does not take a product of at most `most_rows`.
inline Arguments arguments_of(Tensor out, Tensor in, const void* weight, bool accumulate,
                              std::int64_t most_rows) {
  const bool bf16 = out.dtype == DType::bf16;
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  const auto size_fits = [](std::int64_t size) { return size >= 1 && size <= kMostSize; };
  if (in.rows < 1 || in.rows > most_rows || !size_fits(out.cols) || !size_fits(in.cols) ||
      in.cols % 16 != 0 || out.rows != in.rows || in.dtype != DType::bf16 ||
      !(bf16 || out.dtype == DType::f32) || (bf16 && accumulate) || !aligned(weight) ||
      !aligned(in.data)) {
    throw std::invalid_argument("product of few rows: " + std::to_string(in.rows) + " rows of [" +
                                std::to_string(out.cols) + ", " + std::to_string(in.cols) + "]");
  }
  return {
      .weight = weight,
      .in = static_cast<const std::uint16_t*>(in.data),
      .out = out.data,
      .rows = static_cast<std::int32_t>(in.rows),
      .n = static_cast<std::int32_t>(out.cols),
      .k = static_cast<std::int32_t>(in.cols),
      .store = bf16         ? Store::bf16
               : accumulate ? Store::add
                            : Store::f32,
  };
}

}  // namespace mobius::matvec
