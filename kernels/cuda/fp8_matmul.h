#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "kernels/cuda/device.h"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/matmul.h"
#include "kernels/tensor.h"

namespace mobius {

/// out[R, N] = in[R, K] * weight[N, K]^T with fp8 weights: bf16 in, f32 accumulation, f32 or bf16
/// out. The bits are those of CudaMatmul with the weight's values in bf16.
///
/// Few rows are computed by our own kernel, which reads the codes (matvec.h); where rows are many,
/// the weight is widened to bf16 in one buffer that all weights share, and the library multiplies.
/// Where the one ends is found for each [N, K] at start: both run on random rows and must have the
/// same bits, then time decides for 32, 64 and 128 rows. Where bits differ, the library computes
/// all, and `report` says so. A weight larger than the buffer (the head, whose rows are few) is
/// left to our own kernel whatever the rows.
class CudaFp8Matmul {
 public:
  /// Takes memory for weights of up to `most_elements` in bf16, and the library's workspace.
  CudaFp8Matmul(const CudaStream& stream, std::int64_t most_elements);

  static std::size_t device_bytes(std::int64_t most_elements) {
    return static_cast<std::size_t>(most_elements) * 2 + CudaMatmul::kWorkspaceBytes;
  }

  /// Gives the shape a choice for products of up to `max_rows` rows if it has none yet, which waits
  /// for the device and takes memory for a moment.
  void prepare(DType out_type, const Fp8Weight& weight, std::int64_t max_rows);
  /// Enqueues a product whose shape was prepared. Tensors fit each other.
  void run(Tensor out, Tensor in, const Fp8Weight& weight, bool accumulate);

  /// What was chosen: one line per shape.
  std::string report() const;

 private:
  struct Choice {
    std::int64_t own_rows = 0;  ///< the most that our own kernel computes
    bool fits = true;           ///< the buffer has room for the weight
    unsigned differences = 0;   ///< elements whose bits were not the library's
    std::string times;          ///< of both, for each number of rows tried
  };
  using Shape = std::tuple<std::int64_t, std::int64_t, DType>;  ///< N, K, type of out

  void run_library(Tensor out, Tensor in, const Fp8Weight& weight, bool accumulate);
  void compare(Choice& choice, DType out_type, const Fp8Weight& weight, std::int64_t most_rows);

  const CudaStream& stream_;
  std::int64_t most_elements_;
  /// Not our own kernel for bf16, which may read a weight before the kernel that writes it is done.
  CudaMatmul library_;
  std::shared_ptr<void> widened_;
  std::map<Shape, Choice> choices_;
};

}  // namespace mobius
