#include "kernels/cuda/fp8_matmul.h"

#include <algorithm>
#include <cstdio>
#include <limits>

#include "kernels/cuda/check.h"
#include "kernels/cuda/matmul_tuning.h"
#include "kernels/cuda/matvec.h"
#include "kernels/cuda/timer.h"

namespace mobius {
namespace {

/// Rows that our own kernel computes untimed: a single reading of the codes.
constexpr std::int64_t kUntimedRows = 16;
/// Beyond, it would read a weight more than twice, and activations far more often.
constexpr std::int64_t kMostOwnRows = 128;
constexpr int kRepetitions = 5;

}  // namespace

CudaFp8Matmul::CudaFp8Matmul(const CudaStream& stream, std::int64_t most_elements)
    : stream_(stream),
      most_elements_(most_elements),
      library_(stream, ProductKernels::library),
      widened_(allocate_device(static_cast<std::size_t>(most_elements) * 2, "widened weights")) {
  library_.take_workspace();
}

void CudaFp8Matmul::prepare(DType out_type, const Fp8Weight& weight, std::int64_t max_rows) {
  const auto [found, is_new] = choices_.try_emplace({weight.n, weight.k, out_type});
  if (!is_new) return;
  Choice& choice = found->second;
  choice.fits = weight.n * weight.k <= most_elements_;
  if (!choice.fits) {
    choice.own_rows = std::numeric_limits<std::int64_t>::max();
    return;
  }
  try {
    // Any values do to choose the library's algorithms by, but they must be numbers.
    launch_widen(widened_.get(), weight, stream_.get());
    if (out_type == DType::f32) {
      library_.add_weight(widened_.get(), weight.n, weight.k);
      library_.choose(max_rows);
    } else {
      const Tensor out{nullptr, out_type, max_rows, weight.n};
      library_.prepare(out, {nullptr, DType::bf16, max_rows, weight.k}, widened_.get());
    }
    compare(choice, out_type, weight, std::min(max_rows, kMostOwnRows));
  } catch (...) {
    choices_.erase(found);
    throw;
  }
}

void CudaFp8Matmul::compare(Choice& choice, DType out_type, const Fp8Weight& weight,
                            std::int64_t most_rows) {
  const Tensor shape{nullptr, out_type, most_rows, weight.n};
  const auto in_memory =
      allocate_device(static_cast<std::size_t>(most_rows * weight.k * 2), "choosing algorithms");
  const auto want_memory = allocate_device(shape.bytes(), "choosing algorithms");
  const auto got_memory = allocate_device(shape.bytes(), "choosing algorithms");
  const auto counter = allocate_device(sizeof(unsigned), "choosing algorithms");
  const Tensor in{in_memory.get(), DType::bf16, most_rows, weight.k};
  const Tensor want{want_memory.get(), out_type, most_rows, weight.n};
  const Tensor got{got_memory.get(), out_type, most_rows, weight.n};
  launch_random(in, stream_.get());
  run_library(want, in, weight, false);
  MOBIUS_CUDA(cudaMemsetAsync(counter.get(), 0, sizeof(unsigned), stream_.get()));
  for (const std::int64_t wanted : {std::int64_t{1}, std::int64_t{11}, most_rows}) {
    const std::int64_t rows = std::min(wanted, most_rows);
    // To add to zero changes no bit.
    const bool adds = out_type == DType::f32 && rows < most_rows;
    MOBIUS_CUDA(cudaMemsetAsync(got.data, adds ? 0 : 0xff, got.bytes(), stream_.get()));
    launch_matvec_fp8(got.head(rows), in.head(rows), weight, adds, stream_.get());
    launch_count_differences(got.data, want.data, out_type, rows * weight.n,
                             static_cast<unsigned*>(counter.get()), stream_.get());
  }
  MOBIUS_CUDA(cudaMemcpyAsync(&choice.differences, counter.get(), sizeof choice.differences,
                              cudaMemcpyDeviceToHost, stream_.get()));
  stream_.synchronize();
  if (choice.differences != 0) return;
  choice.own_rows = std::min(most_rows, kUntimedRows);
  Timer timer;
  for (std::int64_t rows = 2 * kUntimedRows; rows <= most_rows; rows *= 2) {
    float own = std::numeric_limits<float>::infinity();
    float library = own;
    // In turn: the library's way leaves no codes in the cache that would make the other look fast.
    for (int i = 0; i < kRepetitions; ++i) {
      timer.start(stream_);
      run_library(want.head(rows), in.head(rows), weight, false);
      library = std::min(library, timer.microseconds(stream_));
      timer.start(stream_);
      launch_matvec_fp8(got.head(rows), in.head(rows), weight, false, stream_.get());
      own = std::min(own, timer.microseconds(stream_));
    }
    char text[96];
    std::snprintf(text, sizeof text, "; %lld rows: %.1f us, widened %.1f us",
                  static_cast<long long>(rows), static_cast<double>(own),
                  static_cast<double>(library));
    choice.times += text;
    if (own > library) break;
    choice.own_rows = rows;
  }
}

void CudaFp8Matmul::run_library(Tensor out, Tensor in, const Fp8Weight& weight, bool accumulate) {
  launch_widen(widened_.get(), weight, stream_.get());
  library_.run(out, in, widened_.get(), accumulate);
}

void CudaFp8Matmul::run(Tensor out, Tensor in, const Fp8Weight& weight, bool accumulate) {
  if (out.rows == 0) return;
  const Choice& choice = choices_.at({weight.n, weight.k, out.dtype});
  if (out.rows <= choice.own_rows) {
    launch_matvec_fp8(out, in, weight, accumulate, stream_.get());
  } else {
    run_library(out, in, weight, accumulate);
  }
}

std::string CudaFp8Matmul::report() const {
  std::string text;
  for (const auto& [shape, choice] : choices_) {
    const auto& [n, k, out] = shape;
    char line[128];
    std::snprintf(line, sizeof line, "[%lld, %lld] fp8 to %s: ", static_cast<long long>(n),
                  static_cast<long long>(k), std::string(name_of(out)).c_str());
    text += line;
    if (!choice.fits) {
      text += "own kernel for any number of rows";
    } else if (choice.differences != 0) {
      std::snprintf(line, sizeof line,
                    "widened for any number of rows, %u elements differ from the library's",
                    choice.differences);
      text += line;
    } else {
      std::snprintf(line, sizeof line, "own kernel up to %lld rows",
                    static_cast<long long>(choice.own_rows));
      text += line + choice.times;
    }
    text += '\n';
  }
  return text;
}

}  // namespace mobius
