#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/tensor.h"

namespace mobius {

/// K is summed in chunks of this many elements, each chunk in lanes and reduced once. Part of the
/// order of summation, and with it of every result's bits.
inline constexpr std::int64_t kMatmulChunk = 2048;
/// The most rows of w and of x in a panel, and of x in a register tile. They change speed alone.
inline constexpr std::int64_t kMatmulPanelColumns = 128;
inline constexpr std::int64_t kMatmulPanelRows = 512;
inline constexpr std::int64_t kMatmulTileRows = 6;

/// out[rows, columns] (of rows out_stride elements apart) = x[rows, k] * w[columns, k]^T.
struct MatmulPanel {
  const void* x = nullptr;
  const void* w = nullptr;  ///< x's element type; any alignment of that type
  void* out = nullptr;
  std::int64_t rows = 0;     ///< <= kMatmulPanelRows
  std::int64_t columns = 0;  ///< <= kMatmulPanelColumns
  std::int64_t k = 0;
  std::int64_t out_stride = 0;
  bool out_bf16 = false;
  bool accumulate = false;
  void* packed = nullptr;   ///< scratch [kMatmulTileRows, k rounded up to kMatmulChunk]
  float* totals = nullptr;  ///< scratch [rows, kMatmulPanelColumns]
};

using MatmulPanelFunction = void (*)(const MatmulPanel&);

struct MatmulKernels {
  MatmulPanelFunction bf16 = nullptr;  ///< bf16 x bf16
  MatmulPanelFunction f32 = nullptr;   ///< f32 x f32
};
MatmulKernels matmul_kernels_generic();
#if defined(__x86_64__)
MatmulKernels matmul_kernels_avx2();
MatmulKernels matmul_kernels_avx512();
MatmulKernels matmul_kernels_avx512_bf16();
#endif

/// Matrix products on a thread pool. Weights are read where they lie, whatever their alignment.
///
/// Determinism: an element of the result is a function of its row of x and its row of w. The number
/// of rows, their order, and the number of threads change none of its bits; the instruction set and
/// the element type do.
///
/// Not thread-safe.
class Matmul {
 public:
  Matmul(Isa isa, ThreadPool& pool);

  /// Scratch memory for products over up to `k` elements; what `reserve` takes. A product over more
  /// takes it by itself.
  std::size_t scratch_bytes(std::int64_t k) const;
  void reserve(std::int64_t k);

  /// out[R, N] = in[R, K] * weight[N, K]^T, or += where `accumulate`; see Backend::matmul. Throws
  /// std::invalid_argument before anything is written.
  void operator()(const Tensor& out, const Tensor& in, const Weight& weight, bool accumulate);

 private:
  struct FreeDeleter {
    void operator()(std::byte* memory) const;
  };
  std::size_t scratch_bytes_per_thread(std::int64_t k) const;

  ThreadPool& pool_;
  MatmulKernels kernels_;
  std::int64_t reserved_k_ = 0;
  std::unique_ptr<std::byte, FreeDeleter> scratch_;  ///< per thread: totals, then packed
};

}  // namespace mobius
