#pragma once

#include <charconv>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include "kernels/cuda/check.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/matvec.h"
#include "kernels/cuda/matvec_kernel.cuh"

// What launches with weights of either type share.

namespace mobius::matvec {

/// Leaves shared memory for small kernels, so that the next ones can settle beside this one.
constexpr int kRingBytes = 208 * 1024;

inline Grid grid_of(const Arguments& a) {
  const int tiles = (a.n + kTileRows - 1) / kTileRows;
  return {.blocks = std::min(tiles, multiprocessors()), .ring_bytes = kRingBytes};
}

/// The most tiles that a block owns.
inline int tiles_each(const Arguments& a, const Grid& grid) {
  const int tiles = (a.n + kTileRows - 1) / kTileRows;
  return (tiles + grid.blocks - 1) / grid.blocks;
}

/// Of MOBIUS_CUDA_AHEAD, see matvec.h. Throws std::runtime_error where it is not a number of KiB.
inline int ahead_bytes() {
  const char* asked = std::getenv("MOBIUS_CUDA_AHEAD");
  if (asked == nullptr) return 0;
  const std::string_view text = asked;
  int kib = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), kib);
  if (error != std::errc{} || end != text.data() + text.size() || kib < 0 || kib > 512) {
    throw std::runtime_error("MOBIUS_CUDA_AHEAD is \"" + std::string(text) +
                             "\", must be 0 to 512");
  }
  return kib * 1024;
}

/// Blocks of few rows take up to four tiles at once.
inline void look_ahead(Arguments& a, const NextWeight& next) {
  constexpr int kMostTiles = 4;
  const int bytes = ahead_bytes();
  if (bytes == 0 || next.data == nullptr || next.n > kMostSize) return;
  Arguments other;
  other.n = static_cast<std::int32_t>(next.n);
  a.next_n = other.n;
  a.next_tiles = std::min(tiles_each(other, grid_of(other)), kMostTiles);
  const std::int64_t each = bytes / (a.next_tiles * kTileRows) / 128 * 128;
  a.next_bytes = static_cast<std::uint32_t>(std::min(each, next.row_bytes));
  if (a.next_bytes == 0) return;
  a.next_row_bytes = next.row_bytes;
  a.next = static_cast<const std::uint8_t*>(next.data);
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
