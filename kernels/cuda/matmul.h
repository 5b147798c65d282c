#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/tensor.h"

namespace mobius {

/// What computes products of up to 16 rows: cuBLASLt, or the kernel of matvec.h wherever it takes
/// the shape and has the library's bits.
enum class ProductKernels : std::uint8_t { library, own };

/// MOBIUS_CUDA_PRODUCTS: "own" (as without it) or "library". Throws std::runtime_error on others.
ProductKernels chosen_product_kernels();

/// out[R, N] = in[R, K] * weight[N, K]^T with cuBLASLt: bf16 in, f32 accumulation, f32 or bf16 out.
///
/// A row must not change its bits with the number of rows beside it (backend.h, "Determinism"), but
/// the library's kernels for few rows and for many may sum in other orders. So for each [N, K] all
/// algorithms on offer that keep a sum in one piece are run on random rows against a weight of that
/// shape, once. One order of summation is chosen, and for each number of rows (in steps of two) the
/// fastest algorithm whose result has the same bits. Timing decides between equal bits alone, so
/// that results do not differ from start to start. Where the library offers none with the same bits
/// for some number of rows, that of the chosen order runs there as well, and `report` shows 0
/// equal. Our own kernel for few rows passes the same test before it may run, so it changes no
/// result; where its bits are equal it is taken without a race, because what it gains is the time
/// between kernels too.
class CudaMatmul {
 public:
  explicit CudaMatmul(const CudaStream& stream, ProductKernels kernels = chosen_product_kernels());
  ~CudaMatmul();
  CudaMatmul(const CudaMatmul&) = delete;
  CudaMatmul& operator=(const CudaMatmul&) = delete;

  /// Device memory that products need besides their operands.
  static constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20;
  void take_workspace();

  /// Remembers a weight for `choose`.
  void add_weight(const void* weight, std::int64_t n, std::int64_t k);
  /// Chooses algorithms for all weights known so far, products of up to `max_rows` rows into f32.
  /// Takes and gives back memory for inputs and outputs (at most 0.5 GiB).
  void choose(std::int64_t max_rows);

  /// Tensors fit each other. `weight` is [N, K] bf16. Gives the shape a choice if it has none yet,
  /// which waits for the device and takes memory for a moment.
  void prepare(Tensor out, Tensor in, const void* weight);
  /// Enqueues a product that was prepared.
  void run(Tensor out, Tensor in, const void* weight, bool accumulate);

  /// What was chosen: one line per shape and number of rows.
  std::string report() const;

 private:
  struct Candidate {
    cublasLtMatmulAlgo_t algorithm;
    std::size_t workspace = 0;
    std::string name;
    bool own = false;  ///< matvec.h instead of the library's algorithm
  };
  struct Rung {
    std::int64_t rows = 0;  ///< the most that it serves
    Candidate chosen;
    float microseconds = 0;
    int offered = 0;                 ///< algorithms that ran
    int equal = 0;                   ///< ... whose bits are those of the chosen order
    float fastest_microseconds = 0;  ///< of those on offer, equal bits or not
  };
  struct Choice {
    std::vector<Rung> rungs;  ///< ascending
  };
  using Shape = std::tuple<std::int64_t, std::int64_t, DType>;  ///< N, K, type of out

  Choice& choice_of(std::int64_t n, std::int64_t k, DType out, const void* weight,
                    std::int64_t max_rows);
  std::vector<Candidate> candidates(std::int64_t rows, std::int64_t n, std::int64_t k, DType out,
                                    bool whole_sums);
  bool launch(const Candidate& candidate, Tensor out, Tensor in, const void* weight,
              bool accumulate);

  const CudaStream& stream_;
  ProductKernels kernels_;
  cublasLtHandle_t handle_ = nullptr;
  std::shared_ptr<void> workspace_;
  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<const void*>> weights_;
  std::map<Shape, Choice> choices_;
};

}  // namespace mobius
