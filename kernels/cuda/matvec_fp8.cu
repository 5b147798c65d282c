#include "kernels/cuda/matvec_launch.cuh"

namespace mobius {
namespace {

using matvec::Arguments;
using matvec::Copy;
using matvec::Element;
using matvec::Grid;

/// A stage has 512 columns, as with bf16, or 256 where activations of many rows would leave too few
/// stages. These are read once a pass, so that many rows want more tiles at once.
template <int kRowGroups>
cudaError_t launch_for(const Arguments& a, cudaStream_t stream) {
  constexpr bool kMany = kRowGroups >= 2;
  constexpr int kColumns = kRowGroups == 8 ? 256 : 512;
  constexpr Element kCodes = Element::e4m3;
  const Grid grid = matvec::grid_of(a);
  switch (matvec::tiles_each(a, grid)) {
    case 1: return matvec::launch<1, kColumns, kRowGroups, Copy::bulk, kCodes>(a, grid, stream);
    case 2: return matvec::launch<2, kColumns, kRowGroups, Copy::bulk, kCodes>(a, grid, stream);
    case 3: return matvec::launch<3, kColumns, kRowGroups, Copy::bulk, kCodes>(a, grid, stream);
    default:
      return matvec::launch < kMany ? 7 : 4, kMany ? 256 : 512, kRowGroups, Copy::bulk,
             kCodes > (a, grid, stream);
  }
}

}  // namespace

void launch_matvec_fp8(Tensor out, Tensor in, const Fp8Weight& weight, bool accumulate,
                       cudaStream_t stream) {
  if (out.cols != weight.n || in.cols != weight.k || out.rows != in.rows || in.rows < 1) {
    throw std::invalid_argument("product with fp8 weights: " + std::to_string(in.rows) +
                                " rows of [" + std::to_string(weight.n) + ", " +
                                std::to_string(weight.k) + "]");
  }
  for (std::int64_t first = 0; first < in.rows; first += kMatvecFp8Rows) {
    const std::int64_t rows = std::min(kMatvecFp8Rows, in.rows - first);
    const auto slice = [&](const Tensor& whole) {
      const Tensor before = whole.head(first);
      return Tensor{static_cast<std::byte*>(whole.data) + before.bytes(), whole.dtype, rows,
                    whole.cols};
    };
    Arguments arguments =
        matvec::arguments_of(slice(out), slice(in), weight.codes, accumulate, kMatvecFp8Rows);
    arguments.scales = weight.scales;
    MOBIUS_CUDA(rows <= matvec::kGroupRows       ? launch_for<1>(arguments, stream)
                : rows <= 2 * matvec::kGroupRows ? launch_for<2>(arguments, stream)
                : rows <= 4 * matvec::kGroupRows ? launch_for<4>(arguments, stream)
                                                 : launch_for<8>(arguments, stream));
  }
}

}  // namespace mobius
