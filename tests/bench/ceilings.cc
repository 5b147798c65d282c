#include "tests/bench/ceilings.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mobius {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

template <typename Work>
double timed_on_threads(std::int32_t threads, const Work& work) {
  const auto start = Clock::now();
  std::vector<std::thread> pool;
  for (std::int32_t i = 0; i < threads; ++i) pool.emplace_back([&work, i] { work(i); });
  for (std::thread& thread : pool) thread.join();
  return seconds_since(start);
}

/// Keeps results alive that nobody reads.
std::atomic<std::uint64_t> sink;

#if defined(__x86_64__)

constexpr std::int64_t kRounds = 1'000'000'000;  // long enough for every core to reach its clock
constexpr int kChains = 12;                      // enough to cover the latency of two units

__attribute__((target("avx512f,avx512bf16"))) void spin_avx512_bf16() {
  __m512 sums[kChains];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  __m512bh a = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3C00));
  for (std::int64_t i = 0; i < kRounds / kChains; ++i) {
    asm volatile("" : "+v"(a));  // the compiler must not see through the sums
#pragma GCC unroll 12
    for (int chain = 0; chain < kChains; ++chain) {
      sums[chain] = _mm512_dpbf16_ps(sums[chain], a, a);
    }
  }
  for (const __m512& sum : sums) sink += static_cast<std::uint64_t>(sum[0]);
}

__attribute__((target("avx512f"))) void spin_avx512() {
  __m512 sums[kChains];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  __m512 a = _mm512_set1_ps(0.5F);
  for (std::int64_t i = 0; i < kRounds / kChains; ++i) {
    asm volatile("" : "+v"(a));  // the compiler must not see through the sums
#pragma GCC unroll 12
    for (int chain = 0; chain < kChains; ++chain) {
      sums[chain] = _mm512_fmadd_ps(a, a, sums[chain]);
    }
  }
  for (const __m512& sum : sums) sink += static_cast<std::uint64_t>(sum[0]);
}

__attribute__((target("avx2,fma"))) void spin_avx2() {
  __m256 sums[kChains];
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  __m256 a = _mm256_set1_ps(0.5F);
  for (std::int64_t i = 0; i < kRounds / kChains; ++i) {
    asm volatile("" : "+x"(a));  // keeps the sums in registers, unlike one on each of them
#pragma GCC unroll 12
    for (int chain = 0; chain < kChains; ++chain) {
      sums[chain] = _mm256_fmadd_ps(a, a, sums[chain]);
    }
  }
  for (const __m256& sum : sums) sink += static_cast<std::uint64_t>(sum[0]);
}

#endif

}  // namespace

double read_bandwidth(std::span<const std::byte> data, std::int32_t threads) {
  const std::size_t part = data.size() / static_cast<std::size_t>(threads) / 64 * 64;
  const auto read = [&](std::int32_t thread) {
    const std::byte* begin = data.data() + static_cast<std::size_t>(thread) * part;
    std::uint64_t sums[8] = {};
    for (std::size_t i = 0; i < part; i += 64) {
      std::uint64_t line[8];
      std::memcpy(line, begin + i, sizeof line);
      for (int word = 0; word < 8; ++word) sums[word] += line[word];
    }
    for (const std::uint64_t sum : sums) sink += sum;
  };
  // A ceiling is the best that was seen: whatever disturbs makes it slower, nothing faster.
  double best = timed_on_threads(threads, read);
  for (int repeat = 1; repeat < 5; ++repeat) best = std::min(best, timed_on_threads(threads, read));
  return static_cast<double>(part) * threads / best;
}

double peak_flops(std::int32_t threads) {
#if defined(__x86_64__)
  void (*spin)() = nullptr;
  double per_round = 0;
  if (__builtin_cpu_supports("avx512bf16")) {
    spin = spin_avx512_bf16;
    per_round = 64;
  } else if (__builtin_cpu_supports("avx512f")) {
    spin = spin_avx512;
    per_round = 32;
  } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    spin = spin_avx2;
    per_round = 16;
  }
  if (spin == nullptr) return 0;
  const double seconds = timed_on_threads(threads, [&](std::int32_t) { spin(); });
  return per_round * static_cast<double>(kRounds / kChains * kChains) * threads / seconds;
#else
  (void)threads;
  return 0;
#endif
}

double matmul_flops(Backend& backend, const Weight& weight, DType compute, std::int64_t rows) {
  const auto bytes = [&](std::int64_t cols, DType dtype) {
    return static_cast<std::size_t>(rows * cols) * size_of(dtype);
  };
  const Buffer in = backend.allocate(bytes(weight.cols, compute), "benchmark input");
  const Buffer out = backend.allocate(bytes(weight.rows, DType::f32), "benchmark output");
  std::memset(in.data.get(), 0, in.bytes);
  const auto multiply = [&] {
    backend.matmul(out.view(DType::f32, rows, weight.rows), in.view(compute, rows, weight.cols),
                   weight, false);
  };
  multiply();
  int count = 0;
  const auto start = Clock::now();
  for (; seconds_since(start) < 1.0; ++count) multiply();
  return 2.0 * static_cast<double>(rows) * static_cast<double>(weight.rows * weight.cols) * count /
         seconds_since(start);
}

std::size_t resident_bytes() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("VmRSS:")) return std::stoull(line.substr(6)) * 1024;
  }
  return 0;
}

}  // namespace mobius
