#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/fp8_matmul.h"
#include "kernels/cuda/matmul_tuning.h"
#include "kernels/cuda/matvec.h"
#include "kernels/fp8.h"
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

/// A quantised matrix on the host, by kernels/fp8.h.
struct Quantised {
  std::vector<std::byte> codes;  ///< in the order of Fp8Weight
  std::vector<float> scales;
  std::vector<float> values;
};

Quantised quantised(std::span<const float> values, const Shape& shape) {
  Quantised result;
  result.values = fp8_rounded(values, shape.k);
  for (std::int64_t n = 0; n < shape.n; ++n) {
    const auto row =
        values.subspan(static_cast<std::size_t>(n * shape.k), static_cast<std::size_t>(shape.k));
    float largest = 0;
    for (const float value : row) largest = std::max(largest, std::fabs(value));
    const int exponent = fp8_exponent(largest);
    result.scales.push_back(power_of_two(exponent));
    for (std::int64_t at = 0; at < shape.k; ++at) {
      const std::int64_t column = at / 16 * 16 + fp8_column(static_cast<int>(at % 16));
      const float scaled = row[static_cast<std::size_t>(column)] * power_of_two(-exponent);
      result.codes.push_back(static_cast<std::byte>(to_e4m3(scaled)));
    }
  }
  return result;
}

/// A weight on the device, quantised there, and its values in bf16 beside it.
class DeviceWeight {
 public:
  DeviceWeight(const CudaStream& stream, const Shape& shape)
      : codes_(DType::e4m3, shape.n, shape.k),
        scales_(DType::f32, 1, shape.n),
        widened_(DType::bf16, shape.n, shape.k),
        stream_(stream) {}

  void set(const void* from, DType type) {
    const Fp8Weight to = weight();
    Uploader uploader(stream_);
    uploader.quantise(codes_.tensor().data, static_cast<float*>(scales_.tensor().data), from, type,
                      to.n, to.k);
    launch_widen(widened_.tensor().data, to, stream_.get());
    stream_.synchronize();
  }
  void set_random() {
    const DeviceMatrix values(DType::bf16, weight().n, weight().k);
    launch_random(values.tensor(), stream_.get());
    launch_quantise(codes_.tensor().data, static_cast<float*>(scales_.tensor().data),
                    values.tensor().data, DType::bf16, weight().n, weight().k, stream_.get());
    launch_widen(widened_.tensor().data, weight(), stream_.get());
    stream_.synchronize();
  }

  Fp8Weight weight() const {
    const Tensor codes = codes_.tensor();
    return {codes.data, static_cast<const float*>(scales_.tensor().data), codes.rows, codes.cols};
  }
  const DeviceMatrix& codes() const { return codes_; }
  const DeviceMatrix& scales() const { return scales_; }
  const DeviceMatrix& widened() const { return widened_; }
  bool margins_intact() const {
    return codes_.margins_intact() && scales_.margins_intact() && widened_.margins_intact();
  }

 private:
  DeviceMatrix codes_;
  DeviceMatrix scales_;
  DeviceMatrix widened_;
  const CudaStream& stream_;
};

/// Codes, scales and widened values are those of kernels/fp8.h, bit for bit.
void quantise_case(const CudaStream& stream, const std::string& name, const Shape& shape,
                   DType from, std::span<const float> values, Report& report) {
  const std::vector<float> stored = rounded(from, values);
  const Quantised want = quantised(stored, shape);
  DeviceWeight weight(stream, shape);
  weight.set(packed(from, values).data(), from);
  const bool codes = weight.codes().bytes() == want.codes;
  const bool scales = weight.scales().values() == want.scales;
  const bool widened = weight.widened().bytes() == packed(DType::bf16, want.values);
  std::vector<double> exact(stored.begin(), stored.end());
  report.add({"fp8", name + ", " + name_of_shape(shape) + " of " + std::string(name_of(from)),
              std::string(codes ? "" : "codes differ, ") + (scales ? "" : "scales differ, ") +
                  (widened ? "" : "values differ, ") + "error of the weights " +
                  text(relative_error(want.values, exact)),
              codes && scales && widened && weight.margins_intact()});
}

/// Every code at every place of 16 columns, beside one that keeps the row's scale at 1; subnormals
/// and zeros of both signs among them.
void codes_case(CudaStream& stream, Report& report) {
  constexpr std::int64_t kCodes = 256;
  constexpr std::int64_t kPlaces = 16;
  const Shape shape{kCodes * kPlaces, 32};
  std::vector<float> values(static_cast<std::size_t>(shape.n * shape.k), 0.0F);
  std::vector<float> want;
  for (std::int64_t row = 0; row < shape.n; ++row) {
    const auto code = static_cast<std::uint8_t>(row / kPlaces);
    float* at = values.data() + row * shape.k;
    const float value = (code & 0x7F) == 0x7F ? 0.0F : from_e4m3(code);
    at[row % kPlaces] = value;
    at[16] = kMostE4m3;
    want.push_back(value);
  }
  quantise_case(stream, "every code", shape, DType::f32, values, report);
  DeviceWeight weight(stream, shape);
  weight.set(values.data(), DType::f32);
  // Ones, but nothing of the column that holds 448.
  std::vector<float> ones(static_cast<std::size_t>(shape.k), 1.0F);
  ones[16] = 0.0F;
  DeviceMatrix in(DType::bf16, 1, shape.k);
  in.set(ones);
  DeviceMatrix out(DType::f32, 1, shape.n);
  launch_matvec_fp8(out.tensor(), in.tensor(), weight.weight(), false, stream.get());
  stream.synchronize();
  const bool equal = out.values() == want;
  report.add({"fp8", "every code through a product", equal ? "exact" : "values differ",
              equal && out.margins_intact()});
}

/// Rows of zeros, of the smallest and largest numbers, of numbers that are none.
void odd_rows_case(CudaStream& stream, Report& report) {
  const Shape shape{8, 48};
  std::vector<float> values(static_cast<std::size_t>(shape.n * shape.k), 0.0F);
  const auto row = [&](std::int64_t n) { return values.data() + n * shape.k; };
  std::fill_n(row(1), shape.k, -0.0F);
  std::fill_n(row(2), shape.k, std::numeric_limits<float>::denorm_min());
  std::fill_n(row(3), shape.k, 0x1p-70F);
  std::fill_n(row(4), shape.k, 0x1p70F);
  row(5)[7] = 0x1p100F;  // beyond what scales reach: saturates
  std::fill_n(row(6), shape.k, 1.0F / 3.0F);
  row(7)[47] = -448.0F;
  quantise_case(stream, "rows of odd values", shape, DType::f32, values, report);
  row(0)[5] = std::numeric_limits<float>::quiet_NaN();
  row(2)[47] = std::numeric_limits<float>::infinity();
  DeviceWeight weight(stream, shape);
  weight.set(values.data(), DType::f32);
  DeviceMatrix in(DType::bf16, 3, shape.k);
  in.set(std::vector<float>(static_cast<std::size_t>(3 * shape.k), 1.0F));
  DeviceMatrix out(DType::f32, 3, shape.n);
  launch_matvec_fp8(out.tensor(), in.tensor(), weight.weight(), false, stream.get());
  stream.synchronize();
  const std::vector<float> got = out.values();
  const std::vector<float> widened = weight.widened().values();
  bool right = true;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const std::size_t n = i % static_cast<std::size_t>(shape.n);
    right = right && std::isnan(got[i]) == (n == 0 || n == 2);
    if (n == 1) right = right && got[i] == 0.0F;
    if (n == 4) right = right && got[i] == 48 * 0x1p70F;
    if (n == 7) right = right && got[i] == -448.0F;
  }
  for (std::size_t i = 0; i < widened.size(); ++i) {
    const std::size_t n = i / static_cast<std::size_t>(shape.k);
    right = right && std::isnan(widened[i]) == (n == 0 || n == 2);
  }
  report.add({"fp8", "rows that are not finite are NaN, others are not", right ? "so" : "wrong",
              right && out.margins_intact()});
}

/// 1 to 150 rows against float64 of the quantised and of the original weights, and against the bits
/// of the same product of bf16 weights; every way to store.
void product_case(CudaStream& stream, const Shape& shape, std::mt19937_64& random, Report& report) {
  constexpr std::int64_t kMostRows = 150;
  const std::vector<float> original =
      random_values(static_cast<std::size_t>(shape.n * shape.k), random, 0.02F);
  const std::vector<float> values = fp8_rounded(original, shape.k);
  const std::vector<float> in_values =
      rounded(DType::bf16, random_values(static_cast<std::size_t>(kMostRows * shape.k), random));
  DeviceWeight weight(stream, shape);
  weight.set(original.data(), DType::f32);
  DeviceMatrix in(DType::bf16, kMostRows, shape.k);
  in.set(in_values);
  DeviceMatrix out(DType::f32, kMostRows, shape.n);
  MOBIUS_CUDA(cudaDeviceSynchronize());
  launch_matvec_fp8(out.tensor(), in.tensor(), weight.weight(), false, stream.get());
  stream.synchronize();
  const std::vector<float> got = out.values();
  bool intact = out.margins_intact();
  std::vector<float> checked;
  std::vector<double> want;
  std::vector<double> want_original;
  const std::int64_t count = kMostRows * shape.n;
  for (std::int64_t at = 0; at < count; at += std::max<std::int64_t>(1, count / 4000)) {
    double sum = 0;
    double original_sum = 0;
    for (std::int64_t i = 0; i < shape.k; ++i) {
      const auto from = static_cast<std::size_t>(at % shape.n * shape.k + i);
      const double input = in_values[static_cast<std::size_t>(at / shape.n * shape.k + i)];
      sum += input * double{values[from]};
      original_sum += input * double{original[from]};
    }
    want.push_back(sum);
    want_original.push_back(original_sum);
    checked.push_back(got[static_cast<std::size_t>(at)]);
  }
  const double error = relative_error(checked, want);
  const double quantisation = relative_error(checked, want_original);

  std::string differing;
  DeviceMatrix bf16_out(DType::f32, kMatvecMostRows, shape.n);
  DeviceMatrix small(DType::bf16, kMostRows, shape.n);
  const std::vector<float> before = random_values(got.size(), random, 3.0F);
  for (const std::int64_t rows : {1, 2, 7, 8, 9, 16, 17, 24, 31, 32, 33, 47, 64, 65, 128, 150}) {
    const auto elements = static_cast<std::size_t>(rows * shape.n);
    const auto equal = [&](const std::vector<float>& a, const std::vector<float>& b) {
      return std::equal(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(elements), b.begin());
    };
    bool same = true;
    const auto multiply = [&](const DeviceMatrix& to, bool add) {
      MOBIUS_CUDA(cudaDeviceSynchronize());
      launch_matvec_fp8(to.tensor().head(rows), in.tensor().head(rows), weight.weight(), add,
                        stream.get());
      stream.synchronize();
      intact = intact && to.margins_intact();
    };
    out.poison();
    multiply(out, false);
    same = equal(out.values(), got);
    const std::vector<std::byte> bytes = out.bytes();
    for (std::size_t i = elements * 4; i < bytes.size(); ++i) {
      intact = intact && bytes[i] == std::byte{0xff};
    }
    out.set(before);
    multiply(out, true);
    std::vector<float> sums = got;
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += before[i];
    same = same && equal(out.values(), sums);
    multiply(small, false);
    same = same && equal(small.values(), rounded(DType::bf16, got));
    if (rows <= kMatvecMostRows) {
      launch_matvec(bf16_out.tensor().head(rows), in.tensor().head(rows),
                    weight.widened().tensor().data, false, stream.get());
      stream.synchronize();
      same = same && equal(bf16_out.values(), got);
    }
    if (!same) differing += std::to_string(rows) + " ";
  }
  report.add({"fp8", "1 to 150 rows of " + name_of_shape(shape),
              "error " + text(error) + ", against the original weights " + text(quantisation) +
                  (differing.empty() ? ", bits of bf16" : ", bits differ with rows: " + differing),
              intact && differing.empty() && error < 1e-6 + 2e-9 * static_cast<double>(shape.k) &&
                  quantisation < 0.05});
}

/// What a step calls: the same bits for a row whatever the number of rows, and those of bf16
/// weights, on either side of the place where the library takes over.
void seam_case(CudaStream& stream, const Shape& shape, std::int64_t max_rows, bool fits,
               std::mt19937_64& random, Report& report) {
  DeviceWeight weight(stream, shape);
  weight.set_random();
  DeviceMatrix in(DType::bf16, max_rows, shape.k);
  launch_random(in.tensor(), stream.get());
  CudaFp8Matmul fp8(stream, fits ? shape.n * shape.k : 1);
  fp8.prepare(DType::f32, weight.weight(), max_rows);
  CudaMatmul bf16(stream, ProductKernels::library);
  const void* widened = weight.widened().tensor().data;
  bf16.add_weight(widened, shape.n, shape.k);
  bf16.choose(max_rows);
  DeviceMatrix want(DType::f32, max_rows, shape.n);
  DeviceMatrix got(DType::f32, max_rows, shape.n);
  bf16.run(want.tensor(), in.tensor(), widened, false);
  stream.synchronize();
  const std::vector<std::byte> want_bytes = want.bytes();
  std::string differing;
  int tried = 0;
  for (std::int64_t rows = 1; rows <= max_rows;
       rows += rows < 40 ? 1 : 1 + static_cast<std::int64_t>(random() % 60)) {
    got.poison();
    fp8.run(got.tensor().head(rows), in.tensor().head(rows), weight.weight(), false);
    stream.synchronize();
    const std::vector<std::byte> bytes = got.bytes();
    ++tried;
    if (std::memcmp(bytes.data(), want_bytes.data(),
                    static_cast<std::size_t>(rows * shape.n) * sizeof(float)) != 0) {
      differing += std::to_string(rows) + " ";
    }
  }
  report.add({"fp8",
              "up to " + std::to_string(max_rows) + " rows of " + name_of_shape(shape) +
                  (fits ? ", beside bf16" : ", own alone, beside bf16"),
              differing.empty() ? "bit-equal in " + std::to_string(tried) + " products"
                                : "bits differ with rows: " + differing,
              differing.empty() && got.margins_intact()});
  std::fputs(fp8.report().c_str(), stdout);
}

void refusal_cases(CudaStream& stream, Report& report) {
  DeviceWeight weight(stream, {32, 64});
  weight.set_random();
  const DeviceMatrix in(DType::bf16, 4, 64);
  DeviceMatrix out(DType::f32, 4, 32);
  const auto refuses = [&](const char* name, auto&& call) {
    bool refused = false;
    try {
      call();
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    stream.synchronize();
    report.add({"fp8", name, refused ? "refused" : "taken", refused});
  };
  const auto multiply = [&](Tensor to, Tensor from, Fp8Weight by) {
    launch_matvec_fp8(to, from, by, false, stream.get());
  };
  Fp8Weight other = weight.weight();
  other.n = 16;
  refuses("a weight of other outputs", [&] { multiply(out.tensor(), in.tensor(), other); });
  other = weight.weight();
  other.codes = static_cast<const std::byte*>(other.codes) + 4;
  refuses("codes at an odd address", [&] { multiply(out.tensor(), in.tensor(), other); });
  refuses("no rows", [&] { multiply(out.tensor().head(0), in.tensor().head(0), weight.weight()); });
  refuses("40 columns to quantise", [&] {
    launch_quantise(out.tensor().data, static_cast<float*>(out.tensor().data), in.tensor().data,
                    DType::bf16, 1, 40, stream.get());
  });
  const auto backend = make_cuda_backend(0);
  const std::vector<float> values(400, 1.0F);
  const HostTensor block{values.data(), DType::f32, 10, 40};
  bool refused = false;
  try {
    backend->load_weight(std::span(&block, 1), DType::e4m3);
  } catch (const std::runtime_error&) {
    refused = true;
  }
  report.add({"fp8", "a weight of 40 columns", refused ? "refused" : "taken", refused});
}

}  // namespace

void run_fp8_cases(const Options& options, Report& report) {
  std::mt19937_64 random(7);
  CudaStream stream;
  codes_case(stream, report);
  odd_rows_case(stream, report);
  for (const DType from : {DType::f32, DType::bf16, DType::f16}) {
    const Shape shape{options.small ? 5 : 301, options.small ? 48 : 4112};
    quantise_case(stream, "normal values", shape, from,
                  random_values(static_cast<std::size_t>(shape.n * shape.k), random, 0.02F),
                  report);
  }
  // As in matvec_cases.cc: stages and parts of one, and each number of tiles at once.
  std::vector<Shape> shapes = {{1, 16}, {50, 48}, {33, 528}, {96, 64}};
  if (!options.small) {
    for (const Shape& shape : {Shape{2111, 1040}, Shape{4209, 2064}, Shape{6321, 1536},
                               Shape{8449, 784}, Shape{28679, 272}, Shape{1000, 14336}}) {
      shapes.push_back(shape);
    }
  }
  for (const Shape& shape : shapes) product_case(stream, shape, random, report);
  refusal_cases(stream, report);
  if (options.small) return;
  for (const Shape& shape :
       {Shape{6144, 4096}, Shape{4096, 4096}, Shape{28672, 4096}, Shape{4096, 14336}}) {
    seam_case(stream, shape, 512, true, random, report);
  }
  seam_case(stream, {128256, 4096}, 64, false, random, report);
}

}  // namespace mobius::gpu
