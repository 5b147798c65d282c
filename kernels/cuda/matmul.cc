#include "kernels/cuda/matmul.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string_view>

#include "kernels/cuda/check.h"
#include "kernels/cuda/matmul_tuning.h"
#include "kernels/cuda/matvec.h"
#include "kernels/cuda/timer.h"

namespace mobius {
namespace {

constexpr int kOffers = 32;
/// Rows from which on the choice does not change, and bytes of one output while choosing.
constexpr std::int64_t kMostRows = 2048;
constexpr std::int64_t kMostOutputBytes = std::int64_t{128} << 20;
constexpr int kRepetitions = 5;
/// Weights of one shape to rotate among, so that small ones are not timed from the L2 cache.
constexpr std::size_t kRotation = 4;

cudaDataType_t cuda_type(DType dtype) {
  return dtype == DType::f32 ? CUDA_R_32F : CUDA_R_16BF;
}

/// What describes one product to the library. It is column-major: the transposed product,
/// out^T[N, R] = weight[N, K] * in^T[K, R].
struct Problem {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t weight = nullptr;
  cublasLtMatrixLayout_t in = nullptr;
  cublasLtMatrixLayout_t out = nullptr;

  Problem(std::int64_t rows, std::int64_t n, std::int64_t k, DType out_type) {
    MOBIUS_CUBLAS(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    MOBIUS_CUBLAS(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                                 &transposed, sizeof transposed));
    const auto unsigned_of = [](std::int64_t size) { return static_cast<std::uint64_t>(size); };
    MOBIUS_CUBLAS(
        cublasLtMatrixLayoutCreate(&weight, CUDA_R_16BF, unsigned_of(k), unsigned_of(n), k));
    MOBIUS_CUBLAS(
        cublasLtMatrixLayoutCreate(&in, CUDA_R_16BF, unsigned_of(k), unsigned_of(rows), k));
    MOBIUS_CUBLAS(cublasLtMatrixLayoutCreate(&out, cuda_type(out_type), unsigned_of(n),
                                             unsigned_of(rows), n));
  }
  ~Problem() {
    if (out != nullptr) cublasLtMatrixLayoutDestroy(out);
    if (in != nullptr) cublasLtMatrixLayoutDestroy(in);
    if (weight != nullptr) cublasLtMatrixLayoutDestroy(weight);
    if (operation != nullptr) cublasLtMatmulDescDestroy(operation);
  }
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;
};

template <class T>
T config_of(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute) {
  T value{};
  std::size_t written = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &value, sizeof value, &written);
  return status == CUBLAS_STATUS_SUCCESS ? value : T{};
}

std::string name_of_algorithm(const cublasLtMatmulAlgo_t& algorithm) {
  const auto number = [&](cublasLtMatmulAlgoConfigAttributes_t attribute) {
    return std::to_string(config_of<std::uint32_t>(algorithm, attribute));
  };
  return "algorithm " + number(CUBLASLT_ALGO_CONFIG_ID) + " tile " +
         number(CUBLASLT_ALGO_CONFIG_TILE_ID) + " stages " +
         number(CUBLASLT_ALGO_CONFIG_STAGES_ID) + " split " +
         number(CUBLASLT_ALGO_CONFIG_SPLITK_NUM) + " custom " +
         number(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION) + " inner " +
         std::to_string(config_of<std::uint16_t>(algorithm, CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID)) +
         " cluster " +
         std::to_string(config_of<std::uint16_t>(algorithm, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID));
}

std::vector<std::int64_t> rungs_up_to(std::int64_t rows) {
  std::vector<std::int64_t> rungs = {std::min<std::int64_t>(rows, 8)};
  while (rungs.back() < rows) rungs.push_back(std::min(rows, rungs.back() * 2));
  return rungs;
}

}  // namespace

ProductKernels chosen_product_kernels() {
  const char* asked = std::getenv("MOBIUS_CUDA_PRODUCTS");
  if (asked == nullptr || std::string_view(asked) == "own") return ProductKernels::own;
  if (std::string_view(asked) == "library") return ProductKernels::library;
  throw std::runtime_error("MOBIUS_CUDA_PRODUCTS is \"" + std::string(asked) +
                           "\", must be library or own");
}

CudaMatmul::CudaMatmul(const CudaStream& stream, ProductKernels kernels)
    : stream_(stream), kernels_(kernels) {
  MOBIUS_CUBLAS(cublasLtCreate(&handle_));
}

CudaMatmul::~CudaMatmul() {
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

void CudaMatmul::take_workspace() {
  if (workspace_ == nullptr) workspace_ = allocate_device(kWorkspaceBytes, "matrix products");
}

void CudaMatmul::add_weight(const void* weight, std::int64_t n, std::int64_t k) {
  std::vector<const void*>& known = weights_[{n, k}];
  if (known.size() < kRotation) known.push_back(weight);
}

void CudaMatmul::choose(std::int64_t max_rows) {
  for (const auto& [shape, weights] : weights_) {
    choice_of(shape.first, shape.second, DType::f32, weights.front(), max_rows);
  }
}

std::vector<CudaMatmul::Candidate> CudaMatmul::candidates(std::int64_t rows, std::int64_t n,
                                                          std::int64_t k, DType out,
                                                          bool whole_sums) {
  const Problem problem(rows, n, k, out);
  cublasLtMatmulPreference_t preference = nullptr;
  MOBIUS_CUBLAS(cublasLtMatmulPreferenceCreate(&preference));
  const std::shared_ptr<void> guard(preference, [](void* p) {
    cublasLtMatmulPreferenceDestroy(static_cast<cublasLtMatmulPreference_t>(p));
  });
  const std::size_t workspace = kWorkspaceBytes;
  MOBIUS_CUBLAS(cublasLtMatmulPreferenceSetAttribute(
      preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
  if (whole_sums) {
    const std::uint32_t none = CUBLASLT_REDUCTION_SCHEME_NONE;
    MOBIUS_CUBLAS(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &none, sizeof none));
  }
  cublasLtMatmulHeuristicResult_t results[kOffers];
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle_, problem.operation, problem.weight, problem.in, problem.out, problem.out, preference,
      kOffers, results, &found);
  std::vector<Candidate> offered;
  if (status != CUBLAS_STATUS_SUCCESS) return offered;
  for (int i = 0; i < found; ++i) {
    if (results[i].state != CUBLAS_STATUS_SUCCESS) continue;
    if (whole_sums &&
        config_of<std::int32_t>(results[i].algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM) > 1) {
      continue;
    }
    offered.push_back(
        {results[i].algo, results[i].workspaceSize, name_of_algorithm(results[i].algo)});
  }
  return offered;
}

bool CudaMatmul::launch(const Candidate& candidate, Tensor out, Tensor in, const void* weight,
                        bool accumulate) {
  if (candidate.own) {
    launch_matvec(out, in, weight, accumulate, stream_.get());
    return true;
  }
  const Problem problem(out.rows, out.cols, in.cols, out.dtype);
  const float alpha = 1.0F;
  const float beta = accumulate ? 1.0F : 0.0F;
  const cublasStatus_t status =
      cublasLtMatmul(handle_, problem.operation, &alpha, weight, problem.weight, in.data,
                     problem.in, &beta, out.data, problem.out, out.data, problem.out,
                     &candidate.algorithm, workspace_.get(), kWorkspaceBytes, stream_.get());
  return status == CUBLAS_STATUS_SUCCESS;
}

CudaMatmul::Choice& CudaMatmul::choice_of(std::int64_t n, std::int64_t k, DType out_type,
                                          const void* weight, std::int64_t max_rows) {
  const auto [found, is_new] = choices_.try_emplace({n, k, out_type});
  Choice& choice = found->second;
  if (!is_new) return choice;
  take_workspace();
  const auto element = static_cast<std::int64_t>(size_of(out_type));
  const std::int64_t most_rows =
      std::max<std::int64_t>(1, std::min({max_rows, kMostRows, kMostOutputBytes / (n * element)}));
  const std::vector<std::int64_t> rungs = rungs_up_to(most_rows);
  std::vector<const void*> weights = weights_[{n, k}];
  if (weights.empty()) weights.push_back(weight);

  const auto out_bytes = static_cast<std::size_t>(most_rows * n * element);
  const auto in_memory =
      allocate_device(static_cast<std::size_t>(most_rows * k * 2), "choosing algorithms");
  const auto reference_memory = allocate_device(out_bytes, "choosing algorithms");
  const auto out_memory = allocate_device(out_bytes, "choosing algorithms");
  const auto counter = allocate_device(sizeof(unsigned), "choosing algorithms");
  const Tensor in{in_memory.get(), DType::bf16, most_rows, k};
  const Tensor out{out_memory.get(), out_type, most_rows, n};
  const Tensor reference{reference_memory.get(), out_type, most_rows, n};
  launch_random(in, stream_.get());

  // The same algorithm can be offered for several numbers of rows, and may serve others too.
  std::vector<Candidate> all;
  const auto collect = [&](bool whole_sums) {
    for (auto rung = rungs.rbegin(); rung != rungs.rend(); ++rung) {
      for (Candidate& candidate : candidates(*rung, n, k, out_type, whole_sums)) {
        const bool known = std::any_of(all.begin(), all.end(), [&](const Candidate& other) {
          return std::memcmp(&other.algorithm, &candidate.algorithm, sizeof other.algorithm) == 0;
        });
        if (!known) all.push_back(std::move(candidate));
      }
    }
  };
  collect(true);
  if (all.empty()) collect(false);
  // The order of summation is that of the first algorithm for the most rows that runs.
  const auto first = std::find_if(all.begin(), all.end(), [&](const Candidate& candidate) {
    return launch(candidate, reference, in, weights.front(), false);
  });
  if (first == all.end()) {
    choices_.erase(found);
    throw std::runtime_error("cuBLASLt has no algorithm for a product [rows, " + std::to_string(k) +
                             "] * [" + std::to_string(n) + ", " + std::to_string(k) + "]^T");
  }

  Timer timer;
  for (const std::int64_t rows : rungs) {
    Rung rung;
    rung.rows = rows;
    rung.microseconds = std::numeric_limits<float>::infinity();
    rung.fastest_microseconds = std::numeric_limits<float>::infinity();
    std::vector<Candidate> tried = all;
    if (kernels_ == ProductKernels::own && matvec_takes(rows, n, k)) {
      tried.push_back({.algorithm = {}, .workspace = 0, .name = "own kernel", .own = true});
    }
    for (const Candidate& candidate : tried) {
      const Tensor some{out.data, out_type, rows, n};
      MOBIUS_CUDA(cudaMemsetAsync(some.data, 0xff, some.bytes(), stream_.get()));
      MOBIUS_CUDA(cudaMemsetAsync(counter.get(), 0, sizeof(unsigned), stream_.get()));
      if (!launch(candidate, some, in.head(rows), weights.front(), false)) continue;
      launch_count_differences(some.data, reference.data, out_type, rows * n,
                               static_cast<unsigned*>(counter.get()), stream_.get());
      // Other numbers of rows are other shapes to the library, and adding is another epilogue. To
      // add to zero changes no bit.
      for (const std::int64_t other : {rows / 2 + 1, rows * 5 / 8 + 1}) {
        const std::int64_t fewer = std::min(rows, other);
        const bool adds = out_type == DType::f32;
        MOBIUS_CUDA(cudaMemsetAsync(some.data, adds ? 0 : 0xff, some.bytes(), stream_.get()));
        launch(candidate, some.head(fewer), in.head(fewer), weights.front(), adds);
        launch_count_differences(some.data, reference.data, out_type, fewer * n,
                                 static_cast<unsigned*>(counter.get()), stream_.get());
      }
      unsigned differences = 0;
      MOBIUS_CUDA(cudaMemcpyAsync(&differences, counter.get(), sizeof differences,
                                  cudaMemcpyDeviceToHost, stream_.get()));
      stream_.synchronize();
      float best = std::numeric_limits<float>::infinity();
      for (int i = 0; i < kRepetitions; ++i) {
        const void* some_weight = weights[static_cast<std::size_t>(i) % weights.size()];
        timer.start(stream_);
        launch(candidate, some, in.head(rows), some_weight, false);
        best = std::min(best, timer.microseconds(stream_));
      }
      ++rung.offered;
      rung.fastest_microseconds = std::min(rung.fastest_microseconds, best);
      if (differences != 0) continue;
      ++rung.equal;
      if (candidate.own || best < rung.microseconds) {
        rung.microseconds = best;
        rung.chosen = candidate;
      }
    }
    // Not seen yet; the report would show it. Never our own kernel, which is not `first`.
    if (rung.equal == 0) rung.chosen = *first;
    choice.rungs.push_back(std::move(rung));
  }
  return choice;
}

void CudaMatmul::prepare(Tensor out, Tensor in, const void* weight) {
  choice_of(out.cols, in.cols, out.dtype, weight, kMostRows);
}

void CudaMatmul::run(Tensor out, Tensor in, const void* weight, bool accumulate) {
  if (out.rows == 0) return;
  const Choice& choice = choices_.at({out.cols, in.cols, out.dtype});
  auto rung = std::find_if(choice.rungs.begin(), choice.rungs.end(),
                           [&](const Rung& other) { return out.rows <= other.rows; });
  if (rung == choice.rungs.end()) --rung;
  if (!launch(rung->chosen, out, in, weight, accumulate)) {
    throw std::runtime_error("cuBLASLt: " + rung->chosen.name + " failed for " +
                             std::to_string(out.rows) + " rows of [" + std::to_string(out.cols) +
                             ", " + std::to_string(in.cols) + "]");
  }
}

std::string CudaMatmul::report() const {
  std::string text;
  for (const auto& [shape, choice] : choices_) {
    const auto& [n, k, out] = shape;
    for (const Rung& rung : choice.rungs) {
      char line[256];
      std::snprintf(line, sizeof line,
                    "[%lld, %lld] %s, up to %lld rows: %.1f us (fastest %.1f us), %d of %d with "
                    "equal bits, %s\n",
                    static_cast<long long>(n), static_cast<long long>(k),
                    std::string(name_of(out)).c_str(), static_cast<long long>(rung.rows),
                    static_cast<double>(rung.microseconds),
                    static_cast<double>(rung.fastest_microseconds), rung.equal, rung.offered,
                    rung.chosen.name.c_str());
      text += line;
    }
  }
  return text;
}

}  // namespace mobius
