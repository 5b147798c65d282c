#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_tuning.h"
#include "tests/gpu/cases.h"

namespace mobius::gpu {
namespace {

struct Shape {
  std::int64_t n = 0;
  std::int64_t k = 0;
};

std::string sizes(std::int64_t rows, const Shape& shape) {
  return std::to_string(rows) + " x [" + std::to_string(shape.n) + ", " + std::to_string(shape.k) +
         "]";
}

/// Checks `checked` random elements: all of a large product in float64 would take minutes.
void accuracy_case(CudaStream& stream, CudaMatmul& matmul, const Shape& shape, std::int64_t rows,
                   DType out_type, bool accumulate, std::mt19937_64& random, Report& report) {
  const std::vector<float> in =
      rounded(DType::bf16, random_values(static_cast<std::size_t>(rows * shape.k), random));
  const std::vector<float> weight =
      rounded(DType::bf16, random_values(static_cast<std::size_t>(shape.n * shape.k), random));
  DeviceMatrix in_matrix(DType::bf16, rows, shape.k);
  in_matrix.set(in);
  DeviceMatrix weight_matrix(DType::bf16, shape.n, shape.k);
  weight_matrix.set(weight);
  DeviceMatrix out(out_type, rows, shape.n);
  std::vector<float> before(static_cast<std::size_t>(rows * shape.n), 0.0F);
  if (accumulate) {
    before = random_values(before.size(), random, 10.0F);
    out.set(before);
  }
  matmul.prepare(out.tensor(), in_matrix.tensor(), weight_matrix.tensor().data);
  matmul.run(out.tensor(), in_matrix.tensor(), weight_matrix.tensor().data, accumulate);
  stream.synchronize();
  const std::vector<float> got = out.values();
  std::vector<float> got_checked;
  std::vector<double> want;
  bool finite = true;
  for (const float value : got) finite = finite && std::isfinite(value);
  constexpr int kChecked = 4000;
  for (int i = 0; i < kChecked; ++i) {
    const auto row = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(rows));
    const auto column = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(shape.n));
    double sum = double{before[static_cast<std::size_t>(row * shape.n + column)]};
    for (std::int64_t at = 0; at < shape.k; ++at) {
      sum += double{in[static_cast<std::size_t>(row * shape.k + at)]} *
             double{weight[static_cast<std::size_t>(column * shape.k + at)]};
    }
    want.push_back(sum);
    got_checked.push_back(got[static_cast<std::size_t>(row * shape.n + column)]);
  }
  const double error = relative_error(got_checked, want);
  // Tensor cores cut a product's low bits off when they add it, so the error grows with the sum.
  const double allowed = out_type == DType::f32 ? 1e-6 + 2e-9 * static_cast<double>(shape.k) : 3e-3;
  report.add({"matmul",
              sizes(rows, shape) + " to " + std::string(name_of(out_type)) +
                  (accumulate ? ", accumulated" : ""),
              "error " + text(error), finite && error < allowed && out.margins_intact()});
}

/// A row has the same bits with any number of rows beside it.
void invariance_case(CudaStream& stream, const Shape& shape, std::int64_t max_rows,
                     ProductKernels kernels, std::mt19937_64& random, Report& report) {
  CudaMatmul matmul(stream, kernels);
  const DeviceMatrix weight(DType::bf16, shape.n, shape.k);
  const DeviceMatrix in(DType::bf16, max_rows, shape.k);
  launch_random(weight.tensor(), stream.get());
  launch_random(in.tensor(), stream.get());
  matmul.add_weight(weight.tensor().data, shape.n, shape.k);
  matmul.choose(max_rows);
  DeviceMatrix out(DType::f32, max_rows, shape.n);
  matmul.run(out.tensor(), in.tensor(), weight.tensor().data, false);
  stream.synchronize();
  const std::vector<std::byte> want = out.bytes();
  std::string differing;
  int tried = 0;
  for (std::int64_t rows = 1; rows < max_rows;
       rows += rows < 70 ? 1 : 1 + static_cast<std::int64_t>(random() % 97)) {
    out.poison();
    matmul.run(out.tensor().head(rows), in.tensor().head(rows), weight.tensor().data, false);
    stream.synchronize();
    const std::vector<std::byte> got = out.bytes();
    ++tried;
    const auto bytes = static_cast<std::size_t>(rows * shape.n) * sizeof(float);
    if (std::memcmp(got.data(), want.data(), bytes) != 0) differing += std::to_string(rows) + " ";
  }
  report.add({"invariance",
              sizes(max_rows, shape) + (kernels == ProductKernels::own ? ", few by our own" : ""),
              differing.empty() ? "rows bit-equal in " + std::to_string(tried) + " products"
                                : "bits differ with rows: " + differing,
              differing.empty()});
  std::fputs(matmul.report().c_str(), stdout);
}

}  // namespace

void run_matmul_cases(const Options& options, Report& report) {
  std::mt19937_64 random(3);
  CudaStream stream;
  CudaMatmul matmul(stream);
  const std::vector<Shape> shapes =
      options.small ? std::vector<Shape>{{96, 64}}
                    : std::vector<Shape>{{96, 64}, {50, 72}, {33, 40}, {6144, 4096}, {1000, 14336}};
  for (const Shape& shape : shapes) {
    for (const std::int64_t rows : {1, 5, 64, 257}) {
      if (options.small && rows > 64) continue;
      accuracy_case(stream, matmul, shape, rows, DType::f32, false, random, report);
      accuracy_case(stream, matmul, shape, rows, DType::f32, true, random, report);
    }
    accuracy_case(stream, matmul, shape, 17, DType::bf16, false, random, report);
  }
  if (options.small) return;
  // Llama 3.1 8B: qkv, output, gate and up, down, head.
  for (const Shape& shape : {Shape{6144, 4096}, Shape{4096, 4096}, Shape{28672, 4096},
                             Shape{4096, 14336}, Shape{128256, 4096}}) {
    invariance_case(stream, shape, shape.n > 100000 ? 64 : 1024, ProductKernels::library, random,
                    report);
    invariance_case(stream, shape, 64, ProductKernels::own, random, report);
  }
}

}  // namespace mobius::gpu
