// Attention of one layer of a 1B-shaped model (32 query heads, 8 KV heads of 64, bf16 cache, pages
// of 128 tokens): full against MoBA with blocks of 512, 8 of them attended.
//
//   prefill_chunk/<mode>/<context>  the last 512 tokens of a prompt of <context> tokens
//   prefill_whole/<mode>/<context>  all chunks of the prompt, estimated from every 8th of them
//   decode/<mode>/<context>         one token, with the processor's caches full of other data
//
//   attention_bench --benchmark_out=results.json

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <ctime>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kv_cache.h"
#include "kernels/cpu/thread_pool.h"

namespace mobius {
namespace {

constexpr std::int32_t kHeads = 32;
constexpr std::int32_t kKvHeads = 8;
constexpr std::int32_t kHeadDim = 64;
constexpr std::int32_t kQueryColumns = kHeads * kHeadDim;
constexpr std::int32_t kPage = 128;
constexpr std::int32_t kBlock = 512;
constexpr std::int32_t kTopK = 8;
constexpr std::int32_t kChunk = 512;
constexpr std::int32_t kMaxContext = 65536;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

StepView step_of(const SequenceSlice& slice) {
  StepView step;
  step.slices = std::span(&slice, 1);
  return step;
}

/// A cache full of random keys, and queries for a chunk.
class Layer {
 public:
  Layer()
      : pool_({1, kMaxContext / kPage, kPage, kKvHeads, kHeadDim, DType::bf16, kBlock}),
        threads_(static_cast<int>(std::max(1U, std::thread::hardware_concurrency()))),
        isa_(detect_isa()),
        pages_(kMaxContext / kPage),
        q_(std::size_t{kChunk} * kQueryColumns),
        out_(q_.size()),
        workspace_(64 + attention_workspace_bytes(pool_.shape(), kHeads, {kChunk, 1, kMaxContext},
                                                  threads_.size())),
        evict_(std::size_t{64} << 20) {
    std::mt19937 random(1);
    std::iota(pages_.begin(), pages_.end(), 0);
    std::shuffle(pages_.begin(), pages_.end(), random);
    std::vector<float> frequencies(kHeadDim / 2);
    for (std::size_t i = 0; i < frequencies.size(); ++i) {
      frequencies[i] =
          static_cast<float>(std::pow(500000.0, -2.0 * static_cast<double>(i) / kHeadDim));
    }
    constexpr std::int32_t kColumns = (kHeads + 2 * kKvHeads) * kHeadDim;
    std::vector<float> qkv(static_cast<std::size_t>(kChunk * kColumns));
    std::normal_distribution<float> normal;
    for (float& x : qkv) x = normal(random);
    for (std::int32_t first = 0; first < kMaxContext; first += kChunk) {
      // New numbers for every chunk at little cost: the old ones, moved along.
      std::rotate(qkv.begin(), qkv.begin() + 1237, qkv.end());
      const SequenceSlice slice{0, kChunk, first, pages_, AttentionPolicy::full(), 0};
      rope_append({q_.data(), DType::bf16, kChunk, kQueryColumns},
                  {qkv.data(), DType::f32, kChunk, kColumns}, pool_, 0, frequencies, step_of(slice),
                  threads_);
    }
    // The first call takes the workspace's pages from the system.
    attend(kChunk, kMaxContext, AttentionPolicy::moba(kBlock, kTopK));
  }

  /// Seconds that attention of `rows` tokens at the end of `context` takes.
  double attend(std::int32_t rows, std::int32_t context, const AttentionPolicy& policy) {
    const SequenceSlice slice{0, rows, context - rows, pages_, policy, 0};
    const auto address = reinterpret_cast<std::uintptr_t>(workspace_.data());
    const auto scratch = std::span(workspace_).subspan((64 - address % 64) % 64);
    const Clock::time_point start = Clock::now();
    attention({out_.data(), DType::bf16, rows, kQueryColumns},
              {q_.data(), DType::bf16, rows, kQueryColumns}, pool_, 0, step_of(slice), scratch,
              threads_, isa_);
    return seconds_since(start);
  }

  /// Fills the caches as the weights do that are read between two layers' attention.
  void evict() {
    for (std::size_t i = 0; i < evict_.size(); i += 64) ++evict_[i];
    benchmark::DoNotOptimize(evict_.data());
  }

 private:
  CpuKvPool pool_;
  ThreadPool threads_;
  Isa isa_;
  std::vector<PageId> pages_;
  std::vector<std::uint16_t> q_;
  std::vector<std::uint16_t> out_;
  std::vector<std::byte> workspace_;
  std::vector<std::uint8_t> evict_;
};

Layer& layer() {
  static Layer instance;
  return instance;
}

/// Floating-point operations of full attention for `rows` tokens at the end of `context`.
double full_flops(std::int64_t rows, std::int64_t context) {
  const double keys = static_cast<double>(rows) * static_cast<double>(2 * context - rows + 1) / 2;
  return 4.0 * kHeads * kHeadDim * keys;
}

void prefill_chunk(benchmark::State& state, const AttentionPolicy& policy) {
  const auto context = static_cast<std::int32_t>(state.range(0));
  double seconds = 0;
  const std::clock_t cpu_start = std::clock();
  for (auto _ : state) {
    const double once = layer().attend(kChunk, context, policy);
    state.SetIterationTime(once);
    seconds += once;
  }
  const double each = seconds / static_cast<double>(state.iterations());
  state.counters["tokens_per_s_16_layers"] = kChunk / each / 16;
  if (policy.mode == AttentionMode::full) {
    // By wall-clock time of all threads, and by processor time, which others' load disturbs less.
    const double cpu = static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC;
    const double flops = full_flops(kChunk, context) * static_cast<double>(state.iterations());
    state.counters["gflops"] = flops / seconds * 1e-9;
    state.counters["gflops_per_core"] = flops / cpu * 1e-9;
  }
}

void prefill_whole(benchmark::State& state, const AttentionPolicy& policy) {
  const auto context = static_cast<std::int32_t>(state.range(0));
  constexpr std::int32_t kEvery = 8;
  for (auto _ : state) {
    // The middle chunk of each run of kEvery stands for them: cost grows steadily with context.
    double seconds = 0;
    for (std::int32_t end = kChunk * kEvery / 2; end <= context; end += kChunk * kEvery) {
      seconds += kEvery * layer().attend(kChunk, end, policy);
    }
    state.SetIterationTime(seconds);
  }
}

void decode(benchmark::State& state, const AttentionPolicy& policy) {
  const auto context = static_cast<std::int32_t>(state.range(0));
  for (auto _ : state) {
    layer().evict();
    state.SetIterationTime(layer().attend(1, context, policy));
  }
}

void register_all() {
  struct Mode {
    const char* name;
    AttentionPolicy policy;
  };
  const Mode modes[] = {{"full", AttentionPolicy::full()},
                        {"moba", AttentionPolicy::moba(kBlock, kTopK)}};
  struct Kind {
    const char* name;
    void (*run)(benchmark::State&, const AttentionPolicy&);
    int iterations;
  };
  const Kind kinds[] = {{"prefill_chunk/", prefill_chunk, 0},
                        {"prefill_whole/", prefill_whole, 1},
                        {"decode/", decode, 100}};
  for (const Kind& kind : kinds) {
    for (const Mode& mode : modes) {
      auto* entry = benchmark::RegisterBenchmark((std::string(kind.name) + mode.name).c_str(),
                                                 kind.run, mode.policy);
      entry->Unit(benchmark::kMillisecond)->UseManualTime()->MeasureProcessCPUTime();
      if (kind.iterations > 0) entry->Iterations(kind.iterations);
      for (std::int32_t context = 4096; context <= kMaxContext; context *= 2) entry->Arg(context);
    }
  }
}

}  // namespace
}  // namespace mobius

int main(int argc, char** argv) {
  mobius::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("isa", std::string(mobius::name_of(mobius::detect_isa())));
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
