#include "kernels/cuda/matvec_launch.cuh"

namespace mobius {
namespace {

using matvec::Arguments;
using matvec::Copy;
using matvec::Grid;

/// As many tiles at once as a block owns, up to four: their copies run side by side, and a chain of
/// dependent products on one tile alone would be only just fast enough for a block's share of the
/// bandwidth.
template <int kRowGroups>
cudaError_t launch_for(const Arguments& a, cudaStream_t stream) {
  const Grid grid = matvec::grid_of(a);
  switch (matvec::tiles_each(a, grid)) {
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
  const Arguments arguments = matvec::arguments_of(out, in, weight, accumulate, kMatvecMostRows);
  MOBIUS_CUDA(arguments.rows <= matvec::kGroupRows ? launch_for<1>(arguments, stream)
                                                   : launch_for<2>(arguments, stream));
}

}  // namespace mobius
