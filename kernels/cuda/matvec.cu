#include <stdexcept>
#include <string>

#include "kernels/cuda/check.h"
#include "kernels/cuda/matvec.h"
#include "kernels/cuda/matvec_kernel.cuh"

namespace mobius {
namespace {

using matvec::Arguments;
using matvec::Copy;
using matvec::Grid;
using matvec::kTileRows;
using matvec::Store;

/// Leaves shared memory for small kernels, so that the next ones can settle beside this one.
constexpr int kRingBytes = 208 * 1024;

int multiprocessors() {
  static const int count = [] {
    int device = 0;
    int found = 0;
    MOBIUS_CUDA(cudaGetDevice(&device));
    MOBIUS_CUDA(cudaDeviceGetAttribute(&found, cudaDevAttrMultiProcessorCount, device));
    return found;
  }();
  return count;
}

/// As many tiles at once as a block owns, up to four: their copies run side by side, and a chain of
/// dependent products on one tile alone would be only just fast enough for a block's share of the
/// bandwidth.
template <int kRowGroups>
cudaError_t launch_for(const Arguments& a, const Grid& grid, cudaStream_t stream) {
  const int tiles = (a.n + kTileRows - 1) / kTileRows;
  switch ((tiles + grid.blocks - 1) / grid.blocks) {
    case 1: return matvec::launch<1, 512, kRowGroups, Copy::bulk>(a, grid, stream);
    case 2: return matvec::launch<2, 512, kRowGroups, Copy::bulk>(a, grid, stream);
    case 3: return matvec::launch<3, 512, kRowGroups, Copy::bulk>(a, grid, stream);
    default: return matvec::launch<4, 256, kRowGroups, Copy::bulk>(a, grid, stream);
  }
}

}  // namespace

bool matvec_takes(std::int64_t rows, std::int64_t n, std::int64_t k) {
  constexpr std::int64_t kMost = matvec::kMostSize;
  return rows >= 1 && rows <= kMatvecMostRows && n >= 1 && n <= kMost && k >= 16 && k <= kMost &&
         k % 16 == 0;
}

void launch_matvec(Tensor out, Tensor in, const void* weight, bool accumulate,
                   cudaStream_t stream) {
  const bool bf16 = out.dtype == DType::bf16;
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  if (!matvec_takes(in.rows, out.cols, in.cols) || out.rows != in.rows || in.dtype != DType::bf16 ||
      !(bf16 || out.dtype == DType::f32) || (bf16 && accumulate) || !aligned(weight) ||
      !aligned(in.data)) {
    throw std::invalid_argument("product of few rows: " + std::to_string(in.rows) + " rows of [" +
                                std::to_string(out.cols) + ", " + std::to_string(in.cols) + "]");
  }
  const Arguments arguments{
      .weight = static_cast<const std::uint16_t*>(weight),
      .in = static_cast<const std::uint16_t*>(in.data),
      .out = out.data,
      .rows = static_cast<std::int32_t>(in.rows),
      .n = static_cast<std::int32_t>(out.cols),
      .k = static_cast<std::int32_t>(in.cols),
      .store = bf16         ? Store::bf16
               : accumulate ? Store::add
                            : Store::f32,
  };
  const int tiles = (arguments.n + kTileRows - 1) / kTileRows;
  const Grid grid{.blocks = std::min(tiles, multiprocessors()), .ring_bytes = kRingBytes};
  MOBIUS_CUDA(arguments.rows <= matvec::kGroupRows ? launch_for<1>(arguments, grid, stream)
                                                   : launch_for<2>(arguments, grid, stream));
}

}  // namespace mobius
