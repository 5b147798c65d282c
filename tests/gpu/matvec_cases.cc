#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_tuning.h"
#include "kernels/cuda/matvec.h"
#include "kernels/oracle/ops.h"
#include "tests/gpu/cases.h"

namespace mobius::gpu {
namespace {

struct Shape {
  std::int64_t n = 0;
  std::int64_t k = 0;
};

std::string name_of_shape(const Shape& shape) {
  return std::to_string(shape.n) + " x " + std::to_string(shape.k);
}

/// The operands of products of up to 16 rows, whose inputs lie between NaN.
struct Operands {
  Shape shape;
  std::vector<float> weight_values;
  std::vector<float> in_values;
  DeviceMatrix weight;
  DeviceMatrix in;

  Operands(const Shape& of, std::mt19937_64& random)
      : shape(of),
        weight_values(rounded(DType::bf16,
                              random_values(static_cast<std::size_t>(of.n * of.k), random, 0.1F))),
        in_values(rounded(DType::bf16,
                          random_values(static_cast<std::size_t>(kMatvecMostRows * of.k), random))),
        weight(DType::bf16, of.n, of.k),
        in(DType::bf16, kMatvecMostRows, of.k) {
    weight.set(weight_values);
    in.set(in_values);
  }
};

std::vector<std::byte> first_rows(const DeviceMatrix& matrix, std::int64_t rows) {
  std::vector<std::byte> bytes = matrix.bytes();
  bytes.resize(matrix.tensor().head(rows).bytes());
  return bytes;
}

/// 16 rows against float64; then every smaller number of rows, and again, against those bits.
void rows_case(CudaStream& stream, const Shape& shape, std::mt19937_64& random, Report& report) {
  const Operands operands(shape, random);
  DeviceMatrix out(DType::f32, kMatvecMostRows, shape.n);
  const auto multiply = [&](std::int64_t rows) {
    out.poison();
    launch_matvec(out.tensor().head(rows), operands.in.tensor().head(rows),
                  operands.weight.tensor().data, false, stream.get());
    stream.synchronize();
  };
  multiply(kMatvecMostRows);
  const std::vector<float> got = out.values();
  const std::vector<std::byte> want_bytes = out.bytes();
  bool intact = out.margins_intact();
  std::vector<float> checked;
  std::vector<double> want;
  const std::int64_t count = kMatvecMostRows * shape.n;
  const std::int64_t stride = std::max<std::int64_t>(1, count / 4000);
  for (std::int64_t at = 0; at < count; at += stride) {
    double sum = 0;
    for (std::int64_t i = 0; i < shape.k; ++i) {
      sum += double{operands.in_values[static_cast<std::size_t>(at / shape.n * shape.k + i)]} *
             double{operands.weight_values[static_cast<std::size_t>(at % shape.n * shape.k + i)]};
    }
    want.push_back(sum);
    checked.push_back(got[static_cast<std::size_t>(at)]);
  }
  bool finite = true;
  for (const float value : got) finite = finite && std::isfinite(value);
  const double error = relative_error(checked, want);
  std::string differing;
  for (std::int64_t rows = kMatvecMostRows; rows >= 1; --rows) {
    multiply(rows);
    intact = intact && out.margins_intact();
    const std::vector<std::byte> bytes = first_rows(out, rows);
    if (std::memcmp(bytes.data(), want_bytes.data(), bytes.size()) != 0) {
      differing += std::to_string(rows) + " ";
    }
    // What lies behind the last row is as it was.
    const std::vector<std::byte> all = out.bytes();
    for (std::size_t i = bytes.size(); i < all.size(); ++i) {
      intact = intact && all[i] == std::byte{0xff};
    }
  }
  report.add({"matvec", "1 to 16 rows of " + name_of_shape(shape),
              "error " + text(error) +
                  (differing.empty() ? ", bit-equal" : ", bits differ with rows: " + differing),
              finite && intact && differing.empty() &&
                  error < 1e-6 + 2e-9 * static_cast<double>(shape.k)});
}

/// Adding and rounding, bit for bit from the plain result.
void stores_case(CudaStream& stream, const Shape& shape, std::int64_t rows, std::mt19937_64& random,
                 Report& report) {
  const Operands operands(shape, random);
  const Tensor in = operands.in.tensor().head(rows);
  const void* weight = operands.weight.tensor().data;
  DeviceMatrix plain(DType::f32, rows, shape.n);
  DeviceMatrix added(DType::f32, rows, shape.n);
  DeviceMatrix small(DType::bf16, rows, shape.n);
  const std::vector<float> before =
      random_values(static_cast<std::size_t>(rows * shape.n), random, 3.0F);
  added.set(before);
  MOBIUS_CUDA(cudaDeviceSynchronize());
  launch_matvec(plain.tensor(), in, weight, false, stream.get());
  launch_matvec(added.tensor(), in, weight, true, stream.get());
  launch_matvec(small.tensor(), in, weight, false, stream.get());
  stream.synchronize();
  const std::vector<float> sums = plain.values();
  std::vector<float> want = before;
  for (std::size_t i = 0; i < want.size(); ++i) want[i] += sums[i];
  const bool equal = added.values() == want && small.values() == rounded(DType::bf16, sums);
  report.add(
      {"matvec",
       std::to_string(rows) + " rows of " + name_of_shape(shape) + ", accumulated and to bf16",
       equal ? "exact" : "values differ",
       equal && plain.margins_intact() && added.margins_intact() && small.margins_intact()});
}

/// Products that each read what the one before wrote, into two buffers in turn, recorded as a graph
/// and replayed: each must wait for the one before, although it may start earlier.
void chain_case(CudaStream& stream, std::int64_t size, std::int64_t rows, std::mt19937_64& random,
                Report& report) {
  constexpr int kProducts = 12;
  constexpr int kReplays = 20;
  const Operands first({size, size}, random);
  const Operands second({size, size}, random);
  DeviceMatrix even(DType::bf16, rows, size);
  DeviceMatrix odd(DType::bf16, rows, size);
  const std::vector<float> start(
      first.in_values.begin(), first.in_values.begin() + static_cast<std::ptrdiff_t>(rows * size));
  const auto run = [&](const std::function<void()>& between) {
    for (int i = 0; i < kProducts; ++i) {
      const bool to_odd = i % 2 == 0;
      launch_matvec((to_odd ? odd : even).tensor(), (to_odd ? even : odd).tensor(),
                    (i % 3 == 0 ? first : second).weight.tensor().data, false, stream.get());
      between();
    }
  };
  even.set(start);
  MOBIUS_CUDA(cudaDeviceSynchronize());
  run([&] { stream.synchronize(); });
  const std::vector<std::byte> want = even.bytes();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  MOBIUS_CUDA(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal));
  run([] {});
  MOBIUS_CUDA(cudaStreamEndCapture(stream.get(), &graph));
  MOBIUS_CUDA(cudaGraphInstantiate(&replay, graph, 0));
  int equal = 0;
  for (int i = 0; i < kReplays; ++i) {
    odd.poison();
    even.set(start);
    MOBIUS_CUDA(cudaDeviceSynchronize());
    MOBIUS_CUDA(cudaGraphLaunch(replay, stream.get()));
    stream.synchronize();
    equal += even.bytes() == want ? 1 : 0;
  }
  MOBIUS_CUDA(cudaGraphExecDestroy(replay));
  MOBIUS_CUDA(cudaGraphDestroy(graph));
  report.add({"matvec",
              "a chain of " + std::to_string(kProducts) + " products, " + std::to_string(rows) +
                  " rows of " + name_of_shape({size, size}) + ", replayed",
              std::to_string(equal) + " of " + std::to_string(kReplays) + " bit-equal",
              equal == kReplays});
}

/// The library's bits: what lets our kernel stand in for it.
void library_case(CudaStream& stream, const Shape& shape, Report& report) {
  const DeviceMatrix weight(DType::bf16, shape.n, shape.k);
  const DeviceMatrix in(DType::bf16, kMatvecMostRows, shape.k);
  launch_random(weight.tensor(), stream.get());
  launch_random(in.tensor(), stream.get());
  stream.synchronize();
  DeviceMatrix want(DType::f32, kMatvecMostRows, shape.n);
  DeviceMatrix got(DType::f32, kMatvecMostRows, shape.n);
  CudaMatmul library(stream, ProductKernels::library);
  library.prepare(want.tensor(), in.tensor(), weight.tensor().data);
  std::string differing;
  for (const std::int64_t rows : {1, 2, 7, 8, 9, 16}) {
    want.poison();
    got.poison();
    library.run(want.tensor().head(rows), in.tensor().head(rows), weight.tensor().data, false);
    launch_matvec(got.tensor().head(rows), in.tensor().head(rows), weight.tensor().data, false,
                  stream.get());
    stream.synchronize();
    if (want.bytes() != got.bytes()) differing += std::to_string(rows) + " ";
  }
  report.add({"matvec", "beside the library, " + name_of_shape(shape),
              differing.empty() ? "bit-equal" : "bits differ with rows: " + differing,
              differing.empty()});
}

void refusal_cases(CudaStream& stream, Report& report) {
  const DeviceMatrix weight(DType::bf16, 32, 64);
  const DeviceMatrix in(DType::bf16, 20, 64);
  DeviceMatrix f32(DType::f32, 20, 32);
  DeviceMatrix bf16(DType::bf16, 20, 32);
  const void* data = weight.tensor().data;
  const auto refuses = [&](const char* name, Tensor to, Tensor from, const void* w, bool add) {
    bool refused = false;
    try {
      launch_matvec(to, from, w, add, stream.get());
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    stream.synchronize();
    report.add({"matvec", name, refused ? "refused" : "taken", refused});
  };
  const Tensor from = in.tensor();
  refuses("17 rows", f32.tensor().head(17), from.head(17), data, false);
  refuses("no rows", f32.tensor().head(0), from.head(0), data, false);
  refuses("other numbers of rows", f32.tensor().head(2), from.head(3), data, false);
  refuses("accumulating in bf16", bf16.tensor().head(2), from.head(2), data, true);
  refuses("an input in f32", f32.tensor().head(2), {from.data, DType::f32, 2, 32}, data, false);
  refuses("40 columns", f32.tensor().head(2), {from.data, DType::bf16, 2, 40}, data, false);
  refuses("a weight at an odd address", f32.tensor().head(2), from.head(2),
          static_cast<const std::byte*>(data) + 2, false);
}

}  // namespace

void run_matvec_cases(const Options& options, Report& report) {
  std::mt19937_64 random(5);
  CudaStream stream;
  // One row of weights, one stage and a part of one, tiles cut off at their end, several passes,
  // and each number of tiles at once (1 to 4 per multiprocessor and more).
  std::vector<Shape> shapes = {{1, 16}, {50, 48}, {33, 528}, {96, 64}};
  if (!options.small) {
    for (const Shape& shape : {Shape{2111, 1040}, Shape{4209, 2064}, Shape{6321, 1536},
                               Shape{8449, 784}, Shape{28679, 272}, Shape{1000, 14336}}) {
      shapes.push_back(shape);
    }
  }
  for (const Shape& shape : shapes) {
    rows_case(stream, shape, random, report);
    for (const std::int64_t rows : {1, 8, 13}) stores_case(stream, shape, rows, random, report);
  }
  for (const std::int64_t rows : {1, 16}) {
    chain_case(stream, options.small ? 256 : 4096, rows, random, report);
  }
  refusal_cases(stream, report);
  if (options.small) return;
  for (const Shape& shape : {Shape{6144, 4096}, Shape{4096, 4096}, Shape{28672, 4096},
                             Shape{4096, 14336}, Shape{128256, 4096}}) {
    library_case(stream, shape, report);
  }
}

}  // namespace mobius::gpu
