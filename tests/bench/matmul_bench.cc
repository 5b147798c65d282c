// Matrix products of a 1B-shaped Llama (2048 wide, 32/8 heads of 64, FFN 8192) beside what memory
// and arithmetic allow. Names are <type>/<N>x<K>/<rows of x>; rows 1 is decode, 512 a prefill
// chunk.
//
//   GFLOP/s, GB/s          achieved; GB/s counts the weights once
//   of_peak, of_bandwidth  the same as shares of the ceilings, which are measured first and stand
//   in
//                          the header of the output
//
//   matmul_bench --benchmark_out=results.json

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/host.h"
#include "kernels/cpu/matmul.h"
#include "tests/bench/ceilings.h"

namespace mobius {
namespace {

// Weights are used in turn from as many copies as it takes to find none of them in a cache.
constexpr std::size_t kWeightBytes = std::size_t{256} << 20;

struct Ceilings {
  double bytes_per_second = 0;
  double flops_per_second = 0;
};

struct Free {
  void operator()(std::byte* p) const { std::free(p); }
};
using Memory = std::unique_ptr<std::byte, Free>;

Memory allocate(std::size_t bytes) {
  return Memory(static_cast<std::byte*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
}

/// Small random numbers: bf16 bits whose exponent is that of 2^-7 to 2^-5.
Memory random_memory(std::size_t bytes, DType dtype) {
  Memory memory = allocate(bytes);
  std::minstd_rand random(1);
  for (std::size_t i = 0; i + size_of(dtype) <= bytes; i += size_of(dtype)) {
    const auto bits = static_cast<std::uint32_t>(random());
    const std::uint32_t half = (bits & 0x8000U) | (0x3C00U + (bits & 0xFFU));
    const std::uint32_t word = dtype == DType::f32 ? half << 16 : half;
    std::memcpy(memory.get() + i, &word, size_of(dtype));
  }
  return memory;
}

void run(benchmark::State& state, const Ceilings& ceilings, DType dtype, std::int64_t n,
         std::int64_t k, std::int64_t rows) {
  ThreadPool pool(available_processors());
  Matmul matmul(detect_isa(), pool);
  const std::size_t weight_bytes = static_cast<std::size_t>(n * k) * size_of(dtype);
  const std::size_t copies = (kWeightBytes + weight_bytes - 1) / weight_bytes;
  const Memory weights = random_memory(copies * weight_bytes, dtype);
  const Memory x = random_memory(static_cast<std::size_t>(rows * k) * size_of(dtype), dtype);
  const Memory out = allocate(static_cast<std::size_t>(rows * n) * sizeof(float));
  std::size_t next = 0;
  for (auto _ : state) {
    Weight weight;
    weight.rows = n;
    weight.cols = k;
    weight.row_blocks = {{weights.get() + next * weight_bytes, dtype, n, k}};
    matmul({out.get(), DType::f32, rows, n}, {x.get(), dtype, rows, k}, weight, false);
    next = (next + 1) % copies;
  }
  const auto runs = static_cast<double>(state.iterations());
  const double flops = 2.0 * static_cast<double>(rows * n * k) * runs;
  const double bytes = static_cast<double>(weight_bytes) * runs;
  const auto rate = benchmark::Counter::kIsRate;
  state.counters["GFLOP/s"] = benchmark::Counter(flops / 1e9, rate);
  state.counters["GB/s"] = benchmark::Counter(bytes / 1e9, rate);
  if (ceilings.flops_per_second > 0 && dtype == DType::bf16) {
    state.counters["of_peak"] = benchmark::Counter(flops / ceilings.flops_per_second, rate);
  }
  state.counters["of_bandwidth"] = benchmark::Counter(bytes / ceilings.bytes_per_second, rate);
}

}  // namespace
}  // namespace mobius

int main(int argc, char** argv) {
  using namespace mobius;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;

  const int threads = available_processors();
  Ceilings ceilings;
  {
    const Memory data = random_memory(kWeightBytes, DType::bf16);
    ceilings.bytes_per_second = read_bandwidth({data.get(), kWeightBytes}, threads);
  }
  ceilings.flops_per_second = peak_flops(threads);
  benchmark::AddCustomContext("instruction_set", std::string(name_of(detect_isa())));
  benchmark::AddCustomContext("threads", std::to_string(threads));
  benchmark::AddCustomContext("peak_gflops", std::to_string(ceilings.flops_per_second / 1e9));
  benchmark::AddCustomContext("read_gb_per_s", std::to_string(ceilings.bytes_per_second / 1e9));

  struct Shape {
    std::int64_t n;
    std::int64_t k;
  };
  // q, k and v; attention's output; gate and up; down.
  constexpr Shape kShapes[] = {{3072, 2048}, {2048, 2048}, {16384, 2048}, {2048, 8192}};
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const Shape shape : kShapes) {
      for (const std::int64_t rows : {1, 4, 16, 64, 512}) {
        const std::string name = std::string(name_of(dtype)) + "/" + std::to_string(shape.n) + "x" +
                                 std::to_string(shape.k) + "/" + std::to_string(rows);
        benchmark::RegisterBenchmark(
            name.c_str(),
            [=](benchmark::State& state) { run(state, ceilings, dtype, shape.n, shape.k, rows); })
            ->UseRealTime()
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
