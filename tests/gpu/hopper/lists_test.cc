// The lists in which gating keeps a row's best scores (kernels/cuda/hopper/lane_list.cuh), checked
// against sorting on a machine without a GPU: 32 threads stand for a warp and meet at its
// collectives. Exit status 1 if a choice differs.

#include <algorithm>
#include <barrier>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <thread>
#include <vector>

// What lane_list.cuh takes from CUDA.
#define __device__
#define __forceinline__ inline
struct float4 {
  float x, y, z, w;
};
namespace {

struct ThreadIndex {
  unsigned x;
};
thread_local ThreadIndex threadIdx;

std::barrier<> meeting(32);
std::uint32_t exchanged[32];

float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}

template <typename T>
T __shfl_xor_sync(unsigned /*mask*/, T value, int distance) {
  exchanged[threadIdx.x] = std::bit_cast<std::uint32_t>(value);
  meeting.arrive_and_wait();
  const T other = std::bit_cast<T>(exchanged[threadIdx.x ^ static_cast<unsigned>(distance)]);
  meeting.arrive_and_wait();
  return other;
}

std::uint32_t __reduce_or_sync(unsigned /*mask*/, std::uint32_t value) {
  exchanged[threadIdx.x] = value;
  meeting.arrive_and_wait();
  std::uint32_t all = 0;
  for (const std::uint32_t one : exchanged) all |= one;
  meeting.arrive_and_wait();
  return all;
}

std::uint32_t __funnelshift_l(std::uint32_t low, std::uint32_t high, int shift) {
  return (high << shift) | (low >> (32 - shift));
}
std::uint32_t __float_as_uint(float value) {
  return std::bit_cast<std::uint32_t>(value);
}
int __clz(int value) {
  return std::countl_zero(static_cast<unsigned>(value));
}
using std::fmaxf;
using std::fminf;

}  // namespace

#include "kernels/cuda/hopper/lane_list.cuh"

namespace mobius::hopper {
namespace {

enum class Scores { normal, ties, ascending, descending, some_nan, equal, some_infinite };
constexpr Scores kAllScores[] = {Scores::normal,       Scores::ties,     Scores::ascending,
                                 Scores::descending,   Scores::some_nan, Scores::equal,
                                 Scores::some_infinite};

float draw(Scores kind, int column, std::mt19937_64& random) {
  const float normal = std::normal_distribution<float>()(random);
  const std::uint64_t dice = random() % 60;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  switch (kind) {
    case Scores::normal: return normal;
    case Scores::ties: return static_cast<float>(dice % 5);
    case Scores::ascending: return static_cast<float>(column);
    case Scores::descending: return static_cast<float>(-column);
    case Scores::some_nan: return dice == 0 ? NAN : normal;
    case Scores::equal: return 1.0f;
    case Scores::some_infinite: return dice < 20 ? kInfinity : (dice < 40 ? -kInfinity : normal);
  }
  return 0.0f;
}

/// Rows of a warp whose choice differs from sorting's.
template <int kLength>
int wrong_rows(int steps, int wanted, Scores kind, std::uint64_t seed) {
  const int columns = steps * 128;
  std::mt19937_64 random(seed);
  std::vector<std::vector<float>> scores(16, std::vector<float>(static_cast<std::size_t>(columns)));
  for (auto& row : scores) {
    const int candidates = static_cast<int>(random() % static_cast<std::uint64_t>(columns + 1));
    for (int c = 0; c < columns; ++c) {
      const float score = draw(kind, c, random);
      row[static_cast<std::size_t>(c)] =
          c < candidates ? score : -std::numeric_limits<float>::infinity();
    }
  }
  using Lists = ShortLists<kLength>;
  std::vector<std::vector<int>> chosen(16, std::vector<int>(Lists::kHeld * 4, -2));
  std::vector<float4> stage(128);
  std::vector<std::thread> warp;
  for (unsigned lane = 0; lane < 32; ++lane) {
    warp.emplace_back([&, lane] {
      threadIdx.x = lane;
      Lists lists;
      lists.clear(wanted);
      for (int step = 0; step < steps; ++step) {
        float own[64];
        for (unsigned i = 0; i < 64; ++i) {
          const unsigned column =
              static_cast<unsigned>(step) * 128 + 8 * (i / 4) + 2 * (lane % 4) + i % 2;
          own[i] = scores[lane / 4 + 8 * (i / 2 % 2)][column];
        }
        lists.offer(own, step * 128, stage.data());
      }
      for (unsigned r = 0; r < 2; ++r) {
        int ids[Lists::kHeld] = {};
        int slots[Lists::kHeld] = {};
        lists.collect(static_cast<int>(r), ids, slots);
        for (int e = 0; e < Lists::kHeld; ++e) {
          chosen[lane / 4 + 8 * r][static_cast<std::size_t>(slots[e])] = ids[e];
        }
      }
    });
  }
  for (std::thread& lane : warp) lane.join();

  int wrong = 0;
  for (std::size_t row = 0; row < 16; ++row) {
    std::vector<int> best;
    for (int c = 0; c < columns; ++c) {
      if (scores[row][static_cast<std::size_t>(c)] > -std::numeric_limits<float>::infinity()) {
        best.push_back(c);
      }
    }
    std::stable_sort(best.begin(), best.end(), [&](int a, int b) {
      return scores[row][static_cast<std::size_t>(a)] > scores[row][static_cast<std::size_t>(b)];
    });
    best.resize(std::min(best.size(), static_cast<std::size_t>(wanted)));
    best.resize(chosen[row].size(), -1);
    wrong += best != chosen[row];
  }
  return wrong;
}

int run() {
  int wrong = 0;
  int trials = 0;
  for (const Scores kind : kAllScores) {
    for (const int steps : {1, 3}) {
      const auto seed = static_cast<std::uint64_t>(steps) * 10 + static_cast<std::uint64_t>(kind);
      for (const int wanted : {1, 4}) wrong += wrong_rows<4>(steps, wanted, kind, seed), ++trials;
      for (const int wanted : {5, 7, 8})
        wrong += wrong_rows<8>(steps, wanted, kind, seed), ++trials;
      for (const int wanted : {9, 12}) wrong += wrong_rows<12>(steps, wanted, kind, seed), ++trials;
    }
  }
  std::printf("%d warps of 16 rows, %d rows wrong\n", trials, wrong);
  return wrong == 0 ? 0 : 1;
}

}  // namespace
}  // namespace mobius::hopper

int main() {
  return mobius::hopper::run();
}
