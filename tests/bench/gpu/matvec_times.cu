// Times products of few rows, each beside reading its weight once: cuBLASLt's as
// kernels/cuda/matmul.h chooses it, our own as kernels/cuda/matvec.h launches it, and the variants
// of our kernel.
//
//   matvec_times [--shape NAME] [--rows R]      all shapes of Llama 3.1 8B, R = 1, 2, 4, 8, 16
//
// GB/s of weights, and the share of the rate at which a kernel that only reads gets them. Launches
// are replayed from a graph that passes through more than 1 GB of weights, so none comes from the
// L2 cache.
// "!" behind a number: other bits than cuBLASLt's, or with fp8 codes than the kernel's as launched.
// Under a minute.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_tuning.h"
#include "kernels/cuda/matvec.h"
#include "kernels/cuda/matvec_kernel.cuh"
#include "kernels/cuda/ops.h"

namespace mobius {
namespace {

using matvec::Arguments;
using matvec::Copy;
using matvec::Grid;

constexpr std::size_t kPoolBytes = std::size_t{1280} << 20;
constexpr std::int64_t kMostColumns = 128256;
constexpr std::int64_t kMostOutputs = kMatvecMostRows * kMostColumns;
constexpr int kRepetitions = 5;

struct Shape {
  const char* name;
  std::int64_t n;
  std::int64_t k;
  std::size_t bytes() const { return static_cast<std::size_t>(n * k) * 2; }
};

constexpr Shape kShapes[] = {{"qkv", 6144, 4096},
                             {"output", 4096, 4096},
                             {"gate_up", 28672, 4096},
                             {"down", 4096, 14336},
                             {"head", 128256, 4096}};

// ---- the ceiling --------------------------------------------------------------------------------

__global__ void read_kernel(const uint4* data, std::int64_t count, unsigned* sink) {
  constexpr int kDeep = 8;
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  unsigned sum = 0;
  std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; i + (kDeep - 1) * stride < count; i += kDeep * stride) {
    uint4 v[kDeep];
#pragma unroll
    for (int j = 0; j < kDeep; ++j) v[j] = __ldcs(data + i + j * stride);
#pragma unroll
    for (int j = 0; j < kDeep; ++j) sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  for (; i < count; i += stride) sum ^= data[i].x;
  if (sum == 0x9e3779b9U) *sink = sum;  // never, but the compiler does not know
}

// ---- timing -------------------------------------------------------------------------------------

/// Microseconds of the work that `record` enqueues, from a graph of it; the median of some replays.
double graph_microseconds(const CudaStream& stream, const std::function<void()>& record) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  MOBIUS_CUDA(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal));
  record();
  MOBIUS_CUDA(cudaStreamEndCapture(stream.get(), &graph));
  MOBIUS_CUDA(cudaGraphInstantiate(&replay, graph, 0));
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  MOBIUS_CUDA(cudaEventCreate(&begin));
  MOBIUS_CUDA(cudaEventCreate(&end));
  MOBIUS_CUDA(cudaGraphLaunch(replay, stream.get()));
  std::vector<double> times;
  for (int i = 0; i < kRepetitions; ++i) {
    MOBIUS_CUDA(cudaEventRecord(begin, stream.get()));
    MOBIUS_CUDA(cudaGraphLaunch(replay, stream.get()));
    MOBIUS_CUDA(cudaEventRecord(end, stream.get()));
    MOBIUS_CUDA(cudaEventSynchronize(end));
    float milliseconds = 0;
    MOBIUS_CUDA(cudaEventElapsedTime(&milliseconds, begin, end));
    times.push_back(double{milliseconds} * 1e3);
  }
  MOBIUS_CUDA(cudaEventDestroy(begin));
  MOBIUS_CUDA(cudaEventDestroy(end));
  MOBIUS_CUDA(cudaGraphExecDestroy(replay));
  MOBIUS_CUDA(cudaGraphDestroy(graph));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

double read_rate(const CudaStream& stream, const void* pool, unsigned* sink, int multiprocessors) {
  double best = 0;
  for (const int blocks_each : {4, 8, 16}) {
    const double us = graph_microseconds(stream, [&] {
      read_kernel<<<static_cast<unsigned>(blocks_each * multiprocessors), 256, 0, stream.get()>>>(
          static_cast<const uint4*>(pool), static_cast<std::int64_t>(kPoolBytes / 16), sink);
    });
    best = std::max(best, static_cast<double>(kPoolBytes) / us * 1e-3);
  }
  return best;
}

// ---- variants -----------------------------------------------------------------------------------

/// A product of the operands at hand, enqueued.
struct Variant {
  std::string name;
  /// False where the variant does not take that many rows.
  std::function<bool(Tensor out, Tensor in, const void* weight)> launch;
  /// Takes the memory for fp8 codes, half as many bytes: rates are of those.
  bool codes = false;
};

/// kTiles tiles at once, stages of kColumns columns.
template <int kTiles, int kColumns, Copy kCopy>
void add_variants(std::vector<Variant>& variants, const CudaStream& stream, int multiprocessors) {
  struct Choice {
    int ring_kib;
    bool overlap;
  };
  const Choice choices[] = {{208, true}, {208, false}, {104, true}, {64, true}};
  for (const Choice& choice : choices) {
    const std::string name = std::to_string(kTiles) + " tiles, " + std::to_string(kColumns) +
                             " columns, " + (kCopy == Copy::bulk ? "bulk" : "vector") + ", " +
                             std::to_string(choice.ring_kib) + " KiB" +
                             (choice.overlap ? "" : ", no overlap");
    variants.push_back(
        {name, [=, &stream](Tensor out, Tensor in, const void* weight) {
           const Arguments a{.weight = static_cast<const std::uint16_t*>(weight),
                             .in = static_cast<const std::uint16_t*>(in.data),
                             .out = out.data,
                             .rows = static_cast<std::int32_t>(in.rows),
                             .n = static_cast<std::int32_t>(out.cols),
                             .k = static_cast<std::int32_t>(in.cols)};
           const Grid grid{.blocks = multiprocessors,
                           .ring_bytes = choice.ring_kib * 1024,
                           .overlap = choice.overlap};
           // One stage alone would not run ahead.
           const int rows = static_cast<int>(in.rows);
           if (2 * matvec::stage_bytes<kTiles, kColumns>(rows) > grid.ring_bytes) {
             return false;
           }
           MOBIUS_CUDA(rows <= matvec::kGroupRows
                           ? (matvec::launch<kTiles, kColumns, 1, kCopy>(a, grid, stream.get()))
                           : (matvec::launch<kTiles, kColumns, 2, kCopy>(a, grid, stream.get())));
           return true;
         }});
  }
}

/// fp8 codes on side n: kTiles tiles of 8 rows at once.
template <int kTiles, int kColumns>
void add_codes_variant(std::vector<Variant>& variants, const CudaStream& stream,
                       int multiprocessors, const float* scales) {
  constexpr matvec::Element kCodes = matvec::Element::e4m3;
  constexpr matvec::Side kSide = matvec::Side::n;
  const std::string name = "fp8 codes on side n, " + std::to_string(kTiles) + " tiles, " +
                           std::to_string(kColumns) + " columns";
  variants.push_back(
      {name,
       [=, &stream](Tensor out, Tensor in, const void* weight) {
         const Arguments a{.weight = weight,
                           .scales = scales,
                           .in = static_cast<const std::uint16_t*>(in.data),
                           .out = out.data,
                           .rows = static_cast<std::int32_t>(in.rows),
                           .n = static_cast<std::int32_t>(out.cols),
                           .k = static_cast<std::int32_t>(in.cols)};
         const Grid grid{.blocks = multiprocessors, .ring_bytes = 208 * 1024};
         const int rows = static_cast<int>(in.rows);
         if (2 * matvec::stage_bytes<kTiles, kColumns, kCodes, kSide>(rows) > grid.ring_bytes) {
           return false;
         }
         MOBIUS_CUDA(rows <= matvec::kGroupRows
                         ? (matvec::launch<kTiles, kColumns, 1, Copy::bulk, kCodes, kSide>(
                               a, grid, stream.get()))
                         : (matvec::launch<kTiles, kColumns, 2, Copy::bulk, kCodes, kSide>(
                               a, grid, stream.get())));
         return true;
       },
       true});
}

class Bench {
 public:
  Bench() : library_(stream_, ProductKernels::library) {
    int device = 0;
    MOBIUS_CUDA(cudaGetDevice(&device));
    MOBIUS_CUDA(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device));
    pool_ = allocate_device(kPoolBytes, "weights");
    launch_random({pool_.get(), DType::bf16, 1, static_cast<std::int64_t>(kPoolBytes / 2)},
                  stream_.get());
    in_ = allocate_device(static_cast<std::size_t>(kMatvecMostRows) * 14336 * 2, "inputs");
    launch_random({in_.get(), DType::bf16, kMatvecMostRows, 14336}, stream_.get());
    want_ = allocate_device(static_cast<std::size_t>(kMostOutputs) * 4, "outputs");
    got_ = allocate_device(static_cast<std::size_t>(kMostOutputs) * 4, "outputs");
    counter_ = allocate_device(sizeof(unsigned), "a counter");
    stream_.synchronize();
    rate_ =
        read_rate(stream_, pool_.get(), static_cast<unsigned*>(counter_.get()), multiprocessors_);

    variants_.push_back({"cuBLASLt", [this](Tensor out, Tensor in, const void* weight) {
                           library_.run(out, in, weight, false);
                           return true;
                         }});
    variants_.push_back({"own, as launched", [this](Tensor out, Tensor in, const void* weight) {
                           launch_matvec(out, in, weight, false, stream_.get());
                           return true;
                         }});
    const std::vector<float> ones(kMostColumns, 1.0F);
    scales_ = allocate_device(ones.size() * sizeof(float), "scales");
    MOBIUS_CUDA(cudaMemcpy(scales_.get(), ones.data(), ones.size() * sizeof(float),
                           cudaMemcpyHostToDevice));
    variants_.push_back({"own, fp8 codes",
                         [this](Tensor out, Tensor in, const void* weight) {
                           launch_codes(out, in, weight);
                           return true;
                         },
                         true});
    const auto* scales = static_cast<const float*>(scales_.get());
    add_codes_variant<4, 512>(variants_, stream_, multiprocessors_, scales);
    add_codes_variant<4, 1024>(variants_, stream_, multiprocessors_, scales);
    add_codes_variant<6, 512>(variants_, stream_, multiprocessors_, scales);
    add_codes_variant<7, 512>(variants_, stream_, multiprocessors_, scales);
    add_codes_variant<8, 512>(variants_, stream_, multiprocessors_, scales);
    add_codes_variant<14, 256>(variants_, stream_, multiprocessors_, scales);
    add_codes_variant<14, 512>(variants_, stream_, multiprocessors_, scales);
    add_variants<1, 512, Copy::bulk>(variants_, stream_, multiprocessors_);
    add_variants<2, 256, Copy::bulk>(variants_, stream_, multiprocessors_);
    add_variants<2, 512, Copy::bulk>(variants_, stream_, multiprocessors_);
    add_variants<2, 1024, Copy::bulk>(variants_, stream_, multiprocessors_);
    add_variants<3, 256, Copy::bulk>(variants_, stream_, multiprocessors_);
    add_variants<3, 512, Copy::bulk>(variants_, stream_, multiprocessors_);
    add_variants<4, 256, Copy::bulk>(variants_, stream_, multiprocessors_);
    add_variants<4, 512, Copy::bulk>(variants_, stream_, multiprocessors_);
    add_variants<7, 256, Copy::bulk>(variants_, stream_, multiprocessors_);
    add_variants<2, 512, Copy::vector>(variants_, stream_, multiprocessors_);
    add_variants<3, 256, Copy::vector>(variants_, stream_, multiprocessors_);
    add_variants<4, 256, Copy::vector>(variants_, stream_, multiprocessors_);
  }

  void print_best() const { std::printf("\nthe best of our own\n%s", summary_.c_str()); }

  void print_head() const {
    cudaDeviceProp properties{};
    MOBIUS_CUDA(cudaGetDeviceProperties(&properties, 0));
    std::printf("%s, %d multiprocessors, reads %.0f GB/s\n", properties.name, multiprocessors_,
                rate_);
  }

  void time(const Shape& shape, const std::vector<std::int64_t>& all_rows) {
    const std::size_t copies = kPoolBytes / shape.bytes();
    const auto weight = [&](std::size_t i) {
      return static_cast<const std::byte*>(pool_.get()) + i % copies * shape.bytes();
    };
    for (std::size_t i = 0; i < copies; ++i) library_.add_weight(weight(i), shape.n, shape.k);
    const Tensor out{want_.get(), DType::f32, kMatvecMostRows, shape.n};
    const Tensor in{in_.get(), DType::bf16, kMatvecMostRows, shape.k};
    library_.choose(kMatvecMostRows);
    std::printf("\n%s, [%lld, %lld], %.1f MB; GB/s and share with rows\n%-46s", shape.name,
                static_cast<long long>(shape.n), static_cast<long long>(shape.k),
                static_cast<double>(shape.bytes()) * 1e-6, "");
    for (const std::int64_t rows : all_rows) {
      std::printf("%13lld", static_cast<long long>(rows));
    }
    std::printf("\n");
    std::vector<std::pair<double, std::string>> best(all_rows.size());
    std::vector<double> library_rates(all_rows.size());
    for (const Variant& variant : variants_) {
      std::printf("%-46s", variant.name.c_str());
      for (std::size_t i = 0; i < all_rows.size(); ++i) {
        const std::int64_t rows = all_rows[i];
        const std::optional<double> us =
            time_one(variant, out.head(rows), in.head(rows), shape, weight);
        if (!us) {
          std::printf("%13s", "-");
          continue;
        }
        const double bytes = static_cast<double>(shape.bytes()) * (variant.codes ? 0.5 : 1.0);
        const double rate = bytes / *us * 1e-3;
        std::printf("%6.0f %3.0f %%%s", rate, 100.0 * rate / rate_, equal_ ? " " : "!");
        if (&variant == &variants_.front()) {
          library_rates[i] = rate;
        } else if (!variant.codes && rate > best[i].first) {
          best[i] = {rate, variant.name};
        }
      }
      std::printf("\n");
    }
    for (std::size_t i = 0; i < all_rows.size(); ++i) {
      char line[160];
      std::snprintf(line, sizeof line,
                    "%-8s %2lld rows %5.0f GB/s (%3.0f %%; cuBLASLt %5.0f)  %s\n", shape.name,
                    static_cast<long long>(all_rows[i]), best[i].first,
                    100.0 * best[i].first / rate_, library_rates[i], best[i].second.c_str());
      summary_ += line;
    }
    std::fflush(stdout);
  }

  /// Products and small kernels in turn, each reading what the one before wrote, as a decode step
  /// has them but for attention.
  void time_chain() {
    constexpr std::int64_t kHidden = 4096;
    constexpr std::int64_t kInner = 14336;
    std::size_t at = 0;
    const auto next = [&](const Shape& shape) {
      if (at + shape.bytes() > kPoolBytes) at = 0;
      const void* weight = static_cast<const std::byte*>(pool_.get()) + at;
      at += shape.bytes();
      return weight;
    };
    constexpr int kLayers = 8;
    const auto norm_weight = allocate_device(kHidden * 4, "a weight");
    launch_random({norm_weight.get(), DType::bf16, 1, 2 * kHidden}, stream_.get());
    const auto buffers = allocate_device(std::size_t{64} << 20, "activations");
    MOBIUS_CUDA(cudaMemsetAsync(buffers.get(), 0, std::size_t{64} << 20, stream_.get()));
    auto* place = static_cast<std::byte*>(buffers.get());
    const auto tensor = [&](DType dtype, std::int64_t rows, std::int64_t cols) {
      const Tensor made{place, dtype, rows, cols};
      place += (made.bytes() + 255) / 256 * 256;
      return made;
    };
    std::printf(
        "\na layer's products and four small kernels between them, us a layer (reading alone "
        "%.1f)\n%-46s%13s%13s\n",
        436.2e6 / rate_ * 1e-3, "rows", "1", "16");
    struct Mode {
      const char* name;
      bool own;
      const char* overlap;
    };
    for (const Mode& mode : {Mode{"cuBLASLt", false, "off"}, Mode{"own", true, "off"},
                             Mode{"own, small kernels overlap too", true, "on"}}) {
      std::printf("%-46s", mode.name);
      setenv("MOBIUS_CUDA_OVERLAP", mode.overlap, 1);
      for (const std::int64_t rows : {1, 16}) {
        place = static_cast<std::byte*>(buffers.get());
        const Tensor x = tensor(DType::f32, rows, kHidden);
        const Tensor h = tensor(DType::bf16, rows, kHidden);
        const Tensor qkv = tensor(DType::f32, rows, 6144);
        const Tensor gate_up = tensor(DType::f32, rows, 2 * kInner);
        const Tensor gated = tensor(DType::bf16, rows, kInner);
        const auto norm = [&] {
          launch_rms_norm(h, x, norm_weight.get(), DType::f32, 1e-5F, stream_.get());
        };
        const auto product = [&](Tensor out, Tensor in, const Shape& shape, bool add) {
          if (mode.own) {
            launch_matvec(out, in, next(shape), add, stream_.get());
          } else {
            library_.run(out, in, next(shape), add);
          }
        };
        const double us = graph_microseconds(stream_, [&] {
          at = 0;
          for (int i = 0; i < kLayers; ++i) {
            norm();
            product(qkv, h, kShapes[0], false);
            norm();
            product(x, h, kShapes[1], true);
            norm();
            product(gate_up, h, kShapes[2], false);
            launch_silu_mul(gated, gate_up, stream_.get());
            product(x, gated, kShapes[3], true);
          }
        });
        std::printf("%13.1f", us / kLayers);
      }
      std::printf("\n");
    }
    unsetenv("MOBIUS_CUDA_OVERLAP");
  }

 private:
  /// Microseconds of one product. Sets `equal_`.
  std::optional<double> time_one(const Variant& variant, Tensor out, Tensor in, const Shape& shape,
                                 const std::function<const void*(std::size_t)>& weight) {
    const Tensor got{got_.get(), DType::f32, out.rows, out.cols};
    MOBIUS_CUDA(cudaMemsetAsync(got.data, 0xff, got.bytes(), stream_.get()));
    MOBIUS_CUDA(cudaMemsetAsync(counter_.get(), 0, sizeof(unsigned), stream_.get()));
    if (variant.codes) {
      launch_codes(out, in, weight(0));
    } else {
      library_.run(out, in, weight(0), false);
    }
    if (!variant.launch(got, in, weight(0))) return std::nullopt;
    unsigned differences = 0;
    launch_count_differences(out.data, got.data, DType::f32, out.rows * out.cols,
                             static_cast<unsigned*>(counter_.get()), stream_.get());
    MOBIUS_CUDA(cudaMemcpyAsync(&differences, counter_.get(), sizeof differences,
                                cudaMemcpyDeviceToHost, stream_.get()));
    stream_.synchronize();
    equal_ = differences == 0;
    const std::size_t launches = std::max<std::size_t>(2, kPoolBytes / shape.bytes());
    const double us = graph_microseconds(stream_, [&] {
      for (std::size_t i = 0; i < launches; ++i) variant.launch(got, in, weight(i));
    });
    return us / static_cast<double>(launches);
  }

  void launch_codes(Tensor out, Tensor in, const void* weight) {
    const Fp8Weight codes{weight, static_cast<const float*>(scales_.get()), out.cols, in.cols};
    launch_matvec_fp8(out, in, codes, false, stream_.get());
  }

  CudaStream stream_;
  CudaMatmul library_;
  int multiprocessors_ = 0;
  double rate_ = 0;
  bool equal_ = false;
  std::string summary_;
  std::shared_ptr<void> pool_, in_, want_, got_, counter_, scales_;
  std::vector<Variant> variants_;
};

int run(int argc, char** argv) {
  std::string only;
  std::vector<std::int64_t> rows = {1, 2, 4, 8, 16};
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string argument = argv[i];
    if (argument == "--shape") {
      only = argv[i + 1];
    } else if (argument == "--rows") {
      rows = {std::stoi(argv[i + 1])};
    } else {
      throw std::runtime_error("unknown option " + argument);
    }
  }
  Bench bench;
  bench.print_head();
  for (const Shape& shape : kShapes) {
    if (only.empty() || only == shape.name) bench.time(shape, rows);
  }
  bench.print_best();
  if (only.empty()) bench.time_chain();
  return 0;
}

}  // namespace
}  // namespace mobius

int main(int argc, char** argv) {
  try {
    return mobius::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "matvec_times: %s\n", error.what());
    return 1;
  }
}
