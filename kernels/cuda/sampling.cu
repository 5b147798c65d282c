#include <cooperative_groups.h>

#include <cfloat>
#include <cstdint>

#include "kernels/cuda/check.h"
#include "kernels/cuda/sampling.h"

// A cluster of eight thread blocks draws a row's token. Every thread keeps its share of the row in
// registers, as keys whose order is that of the logits; nothing is sorted. Order statistics are
// found bit by bit: "how many (or how much probability) lie at or above this key" is one reduction
// over the cluster. Probabilities are integers, so that sums do not depend on their order.

namespace mobius {
namespace {

namespace cg = cooperative_groups;

constexpr int kBlocks = 8;
constexpr int kThreads = 1024;
constexpr int kStride = kBlocks * kThreads;
constexpr unsigned kWarp = 0xffffffffU;
/// The most likely token's weight.
constexpr float kOne = 2147483648.0F;
/// A token that must not be drawn: below the key of any float, -infinity included.
constexpr std::uint32_t kForbidden = 0;
constexpr std::uint32_t kKeyOfMinusInfinity = 0x007fffffU;

__device__ std::uint32_t key_of(float value) {
  value = isnan(value) ? -INFINITY : fminf(value, FLT_MAX);
  const std::uint32_t bits = __float_as_uint(value + 0.0F);
  return bits ^ ((bits & 0x80000000U) != 0 ? 0xffffffffU : 0x80000000U);
}

__device__ float value_of(std::uint32_t key) {
  return __uint_as_float(key ^ ((key & 0x80000000U) != 0 ? 0x80000000U : 0xffffffffU));
}

/// Sums and maxima over the threads of a cluster. Every thread of the cluster must call.
class Reducer {
 public:
  struct Shared {
    std::uint64_t warps[2][kThreads / 32];
    std::uint64_t blocks[2][kBlocks];
  };

  __device__ explicit Reducer(Shared& shared) : shared_(shared) {}

  /// value < 2^44
  __device__ std::uint64_t sum(std::uint64_t value) {
    return reduce(
        value, [](std::uint64_t x) { return warp_sum(x); },
        [](std::uint64_t a, std::uint64_t b) { return a + b; });
  }
  __device__ std::uint64_t max(std::uint64_t value) {
    return reduce(
        value, [](std::uint64_t x) { return warp_max(x); },
        [](std::uint64_t a, std::uint64_t b) { return a > b ? a : b; });
  }
  /// In an order that is always the same.
  __device__ float sum(float value) {
    const std::uint64_t bits = reduce(
        __float_as_uint(value),
        [](std::uint64_t x) {
          float sum = __uint_as_float(static_cast<std::uint32_t>(x));
          for (int offset = 16; offset > 0; offset /= 2) {
            sum += __shfl_xor_sync(kWarp, sum, offset);
          }
          return std::uint64_t{__float_as_uint(sum)};
        },
        [](std::uint64_t a, std::uint64_t b) {
          return std::uint64_t{__float_as_uint(__uint_as_float(static_cast<std::uint32_t>(a)) +
                                               __uint_as_float(static_cast<std::uint32_t>(b)))};
        });
    return __uint_as_float(static_cast<std::uint32_t>(bits));
  }

 private:
  __device__ static std::uint64_t warp_sum(std::uint64_t value) {
    // In pieces of 22 bits, which 32 lanes cannot make overflow 32.
    const std::uint64_t low = __reduce_add_sync(kWarp, static_cast<unsigned>(value & 0x3fffffU));
    const std::uint64_t high = __reduce_add_sync(kWarp, static_cast<unsigned>(value >> 22));
    return low + (high << 22);
  }
  __device__ static std::uint64_t warp_max(std::uint64_t value) {
    const auto high = static_cast<unsigned>(value >> 32);
    const unsigned highest = __reduce_max_sync(kWarp, high);
    const unsigned low =
        __reduce_max_sync(kWarp, high == highest ? static_cast<unsigned>(value) : 0U);
    return std::uint64_t{highest} << 32 | low;
  }

  template <class OfWarp, class Combine>
  __device__ std::uint64_t reduce(std::uint64_t value, OfWarp of_warp, Combine combine) {
    // Two sets of slots in turn: a thread may be in the next reduction while others still read.
    turn_ ^= 1;
    cg::cluster_group cluster = cg::this_cluster();
    const auto warp = threadIdx.x / 32;
    const auto lane = threadIdx.x % 32;
    const std::uint64_t own = of_warp(value);
    if (lane == 0) shared_.warps[turn_][warp] = own;
    __syncthreads();
    if (warp == 0) {
      const std::uint64_t block = of_warp(shared_.warps[turn_][lane]);
      if (lane < kBlocks) {
        *cluster.map_shared_rank(&shared_.blocks[turn_][cluster.block_rank()], lane) = block;
      }
    }
    cluster.sync();
    std::uint64_t result = shared_.blocks[turn_][0];
    for (int i = 1; i < kBlocks; ++i) result = combine(result, shared_.blocks[turn_][i]);
    return result;
  }

  Shared& shared_;
  int turn_ = 0;
};

/// The end of a kept head of the tokens in their order of likelihood: greater keys, and equal ones
/// up to this token, are kept.
struct Cut {
  std::uint32_t key = kForbidden;
  std::uint32_t last_token = 0xffffffffU;

  __device__ bool keeps(std::uint32_t other, std::uint32_t token) const {
    return other > key || (other == key && token <= last_token);
  }
};

template <int V>
struct Row {
  std::uint32_t key[V];
  const std::uint32_t* weight;  ///< shared: [V][kThreads]
  Reducer reduce;

  __device__ static std::uint32_t token(int v) {
    return static_cast<std::uint32_t>(v) * kStride + cg::this_cluster().block_rank() * kThreads +
           threadIdx.x;
  }

  __device__ std::uint64_t weight_of(int v) const {
    return weight[v * kThreads + static_cast<int>(threadIdx.x)];
  }

  /// Sum of measure(v) over the tokens that `holds(v)`.
  template <class Holds, class Measure>
  __device__ std::uint64_t total(Holds holds, Measure measure) {
    std::uint64_t sum = 0;
#pragma unroll
    for (int v = 0; v < V; ++v) sum += holds(v) ? measure(v) : 0;
    return reduce.sum(sum);
  }

  /// The shortest head of what `within` keeps that measures at least `wanted` > 0 (at most all).
  template <class Measure>
  __device__ Cut head(const Cut& within, std::uint64_t wanted, Measure measure) {
    Cut cut;
    for (int bit = 31; bit >= 0; --bit) {
      const std::uint32_t candidate = cut.key | 1U << bit;
      const std::uint64_t reached = total(
          [&](int v) { return key[v] >= candidate && within.keeps(key[v], token(v)); }, measure);
      if (reached >= wanted) cut.key = candidate;
    }
    const std::uint64_t above =
        total([&](int v) { return key[v] > cut.key && within.keeps(key[v], token(v)); }, measure);
    const auto equal = [&](int v) { return key[v] == cut.key && within.keeps(key[v], token(v)); };
    const std::uint64_t count = total(equal, [](int) { return 1; });
    cut.last_token = within.key == cut.key ? within.last_token : 0xffffffffU;
    if (count <= 1) return cut;
    // Among equal ones, from the lowest id on.
    std::uint32_t last = 0;  // the highest id such that those below it are not enough
    for (int bit = 17; bit >= 0; --bit) {
      const std::uint32_t candidate = last | 1U << bit;
      const std::uint64_t below =
          total([&](int v) { return equal(v) && token(v) < candidate; }, measure);
      if (above + below < wanted) last = candidate;
    }
    cut.last_token = min(cut.last_token, last);
    return cut;
  }

  /// The most likely of the tokens that `holds`, as key and complement of the id.
  template <class Holds>
  __device__ std::uint64_t most_likely(Holds holds) {
    std::uint64_t best = 0;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const std::uint64_t own = std::uint64_t{key[v]} << 32 | ~token(v);
      if (holds(own)) best = own > best ? own : best;
    }
    return reduce.max(best);
  }
};

__device__ std::uint32_t token_of(std::uint64_t ranked) {
  return ~static_cast<std::uint32_t>(ranked);
}
__device__ std::uint32_t key_part(std::uint64_t ranked) {
  return static_cast<std::uint32_t>(ranked >> 32);
}

__device__ float logprob_of(float logit, double log_sum) {
  return static_cast<float>(fmax(static_cast<double>(logit) - log_sum, -double{FLT_MAX}));
}

/// The token that the row's uniform number falls on, kept tokens laid end to end.
template <int V>
__device__ std::uint32_t draw(Row<V>& row, std::uint32_t* weights, std::uint32_t highest,
                              std::int64_t vocab, const DeviceSampleRow& params) {
  const float scale = fminf(1.0F / params.temperature, FLT_MAX);
  const float top = value_of(highest);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const bool possible = row.key[v] > kKeyOfMinusInfinity;
    float share = possible ? expf((value_of(row.key[v]) - top) * scale) : 0.0F;
    if (row.key[v] == highest) share = 1.0F;  // also where scale is infinite
    weights[v * kThreads + static_cast<int>(threadIdx.x)] = __float2uint_rn(share * kOne);
  }
  const auto kept_by = [&](const Cut& cut) {
    return [&row, &cut](int v) { return cut.keeps(row.key[v], Row<V>::token(v)); };
  };
  const auto weight = [&](int v) { return row.weight_of(v); };
  Cut kept;
  if (params.top_k > 0 && params.top_k < vocab) {
    kept = row.head(kept, static_cast<std::uint64_t>(params.top_k),
                    [](int) { return std::uint64_t{1}; });
  }
  if (params.top_p < 1.0F) {
    const std::uint64_t total = row.total(kept_by(kept), weight);
    const double wanted = ceil(static_cast<double>(params.top_p) * static_cast<double>(total));
    kept = row.head(kept, ::max(static_cast<std::uint64_t>(wanted), std::uint64_t{1}), weight);
  }
  const auto least = static_cast<std::uint64_t>(params.min_p * kOne);
  const auto filtered = [&](int v) { return row.weight_of(v) >= least ? row.weight_of(v) : 0; };
  const std::uint64_t total = row.total(kept_by(kept), filtered);
  const double target = static_cast<double>(params.uniform) * static_cast<double>(total);
  const Cut drawn = row.head(kept, static_cast<std::uint64_t>(target) + 1, filtered);
  std::uint64_t token = 0;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const std::uint32_t own = Row<V>::token(v);
    if (row.key[v] == drawn.key && kept.keeps(row.key[v], own) && own <= drawn.last_token) {
      token = own;
    }
  }
  return static_cast<std::uint32_t>(row.reduce.max(token));
}

template <int V>
__global__ void __cluster_dims__(kBlocks, 1, 1) __launch_bounds__(kThreads, 1)
    sample_kernel(DeviceSampledToken* results, float* logits, std::int64_t vocab,
                  std::byte* staging) {
  __shared__ Reducer::Shared shared;
  extern __shared__ std::uint32_t weights[];
  const int index = static_cast<int>(blockIdx.x) / kBlocks;
  const DeviceSampleRow params = reinterpret_cast<const DeviceSampleRow*>(staging)[index];
  auto* edits = reinterpret_cast<LogitEdit*>(staging + params.edits_at);
  const auto* mask = reinterpret_cast<const std::uint32_t*>(staging + params.mask_at);
  float* own = logits + index * vocab;
  DeviceSampledToken& result = results[index];
  cg::cluster_group cluster = cg::this_cluster();
  cluster.sync();  // no block writes into another that has not started
  const std::uint32_t thread = Row<V>::token(0);

  Row<V> row{{}, weights, Reducer(shared)};
  const auto load = [&] {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const std::uint32_t token = Row<V>::token(v);
      row.key[v] = token < vocab ? key_of(own[token]) : kForbidden;
    }
  };
  load();
  double log_sum = 0;
  if (params.top_logprobs >= 0) {
    // The model's own distribution: before bias, penalties and the mask.
    std::uint64_t ranked = row.most_likely([](std::uint64_t) { return true; });
    const float highest = value_of(key_part(ranked));
    if (highest != -INFINITY) {
      float sum = 0;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        if (row.key[v] > kKeyOfMinusInfinity) sum += expf(value_of(row.key[v]) - highest);
      }
      log_sum = static_cast<double>(highest) + log(static_cast<double>(row.reduce.sum(sum)));
    }
    for (int i = 0; i < params.top_logprobs && i < vocab; ++i) {
      if (i > 0) ranked = row.most_likely([&](std::uint64_t other) { return other < ranked; });
      if (thread == 0) {
        result.top_tokens[i] = static_cast<std::int32_t>(token_of(ranked));
        result.top_logprobs[i] = logprob_of(value_of(key_part(ranked)), log_sum);
      }
    }
  }

  if (params.num_edits > 0) {
    for (int e = static_cast<int>(thread); e < params.num_edits; e += kStride) {
      const LogitEdit edit = edits[e];
      if (edit.token >= vocab) continue;
      const float raw = value_of(key_of(own[edit.token]));
      edits[e].bias = raw;  // used up; what the model said is asked for below
      float logit = raw + edit.bias;
      if (edit.seen != 0 && params.repetition_penalty != 1.0F) {
        logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
      }
      if (edit.generated > 0) {
        logit -=
            params.presence_penalty + params.frequency_penalty * static_cast<float>(edit.generated);
      }
      own[edit.token] = logit;
    }
    __threadfence();
    cluster.sync();
    load();
  }
  if (params.has_mask != 0) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const std::uint32_t token = Row<V>::token(v);
      if (token < vocab && (mask[token / 32] >> (token % 32) & 1U) == 0) row.key[v] = kForbidden;
    }
  }

  const std::uint64_t ranked = row.most_likely([](std::uint64_t) { return true; });
  const std::uint32_t highest = key_part(ranked);
  std::uint32_t token = token_of(ranked);
  if (params.temperature > 0.0F && highest > kKeyOfMinusInfinity) {
    token = draw(row, weights, highest, vocab, params);
  }
  if (thread == 0) result.token = static_cast<std::int32_t>(token);
  if (params.top_logprobs < 0) return;
  std::uint64_t edited = 0;
  for (int e = static_cast<int>(thread); e < params.num_edits; e += kStride) {
    if (edits[e].token == static_cast<std::int32_t>(token)) edited = key_of(edits[e].bias);
  }
  const std::uint64_t raw = row.reduce.max(edited);
  if (thread == 0) {
    const std::uint32_t key = raw > 0 ? static_cast<std::uint32_t>(raw) : key_of(own[token]);
    result.logprob = logprob_of(value_of(key), log_sum);
  }
}

template <int V>
void launch(DeviceSampledToken* results, float* logits, std::int64_t vocab, std::byte* staging,
            std::int32_t rows, cudaStream_t stream) {
  constexpr int kSharedBytes = V * kThreads * static_cast<int>(sizeof(std::uint32_t));
  MOBIUS_CUDA(cudaFuncSetAttribute(sample_kernel<V>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   kSharedBytes));
  sample_kernel<V><<<static_cast<unsigned>(rows * kBlocks), kThreads, kSharedBytes, stream>>>(
      results, logits, vocab, staging);
  MOBIUS_CUDA_LAUNCHED();
}

}  // namespace

void launch_sample(DeviceSampledToken* results, float* logits, std::int64_t vocab,
                   std::byte* staging, std::int32_t rows, cudaStream_t stream) {
  if (rows == 0) return;
  if (vocab <= 2 * kStride) {
    launch<2>(results, logits, vocab, staging, rows, stream);
  } else if (vocab <= 16 * kStride) {
    launch<16>(results, logits, vocab, staging, rows, stream);
  } else {
    launch<32>(results, logits, vocab, staging, rows, stream);
  }
}

}  // namespace mobius
