#pragma once

// MoBA by the rules (kernels/moba.md) in the plainest way, on the device: one block of threads per
// row and head, everything in double but the centroids, whose every bit the rules fix.

#include "tests/gpu/hopper/fixture.cuh"

namespace mobius::hopper {

struct ReferenceParams {
  Geometry g;
  const Slice* slices;
  const std::int32_t* table;
  int table_stride;
  const __nv_bfloat16* keys;
  const __nv_bfloat16* values;
  const float* sums;
  const __nv_bfloat16* q;
  const std::int64_t* samples;  ///< row * q_heads + head, and the slice in the high 16 bits
  double* scratch;              ///< [samples, max_context] scores
  int max_context;
  double* out;  ///< [samples, dim]
  double* gap;  ///< [samples] score of the worst chosen minus best left out, relative to their size
};

constexpr int kReferenceThreads = 128;

__device__ inline double block_reduce(double value, bool maximum) {
  __shared__ double shared[kReferenceThreads];
  __syncthreads();
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int d = kReferenceThreads / 2; d > 0; d /= 2) {
    if (static_cast<int>(threadIdx.x) < d) {
      const double other = shared[threadIdx.x + d];
      shared[threadIdx.x] =
          maximum ? fmax(shared[threadIdx.x], other) : shared[threadIdx.x] + other;
    }
    __syncthreads();
  }
  return shared[0];
}

__global__ void __launch_bounds__(kReferenceThreads) reference_kernel(ReferenceParams p) {
  const std::int64_t sample = p.samples[blockIdx.x];
  const Slice slice = p.slices[sample >> 48];
  const std::int64_t vector = sample & ((std::int64_t{1} << 48) - 1);
  const int row = static_cast<int>(vector / p.g.q_heads);
  const int kv_head = static_cast<int>(vector % p.g.q_heads) / (p.g.q_heads / p.g.kv_heads);
  const int position = slice.first_position + row - slice.first_row;
  const __nv_bfloat16* q = p.q + vector * p.g.dim;
  const std::int32_t* pages = p.table + static_cast<std::int64_t>(slice.table_row) * p.table_stride;
  double* scores = p.scratch + static_cast<std::int64_t>(blockIdx.x) * p.max_context;
  const int t = static_cast<int>(threadIdx.x);
  __shared__ int chosen[64];
  __shared__ int chosen_count;
  __shared__ double cut;

  // Candidates and choice.
  const int block = slice.block > 0 ? slice.block : position + 1;
  const int candidates = position / block;
  const int wanted = slice.block > 0 ? min(slice.top_k - 1, candidates) : 0;
  for (int b = t; b < candidates; b += kReferenceThreads) {
    double score = 0.0;
    double size = 0.0;
    for (int c = 0; c < p.g.dim; ++c) {
      float sum = 0.0f;
      for (int page = b * (block / p.g.page_tokens); page < (b + 1) * (block / p.g.page_tokens);
           ++page) {
        sum = __fadd_rn(
            sum,
            p.sums[(static_cast<std::int64_t>(pages[page]) * p.g.kv_heads + kv_head) * p.g.dim +
                   c]);
      }
      const float centroid =
          __bfloat162float(__float2bfloat16_rn(__fdiv_rn(sum, static_cast<float>(block))));
      score += static_cast<double>(centroid) * __bfloat162float(q[c]);
      size += fabs(static_cast<double>(centroid) * __bfloat162float(q[c]));
    }
    scores[b] = score;
  }
  __syncthreads();
  if (t == 0) {
    cut = INFINITY;
    for (int i = 0; i < wanted; ++i) {
      int best = -1;
      for (int b = 0; b < candidates; ++b) {
        bool taken = false;
        for (int j = 0; j < i; ++j) taken = taken || chosen[j] == b;
        if (!taken && (best < 0 || scores[b] > scores[best])) best = b;
      }
      chosen[i] = best;
      cut = scores[best];
    }
    double left_out = -INFINITY;
    for (int b = 0; b < candidates; ++b) {
      bool taken = false;
      for (int j = 0; j < wanted; ++j) taken = taken || chosen[j] == b;
      if (!taken) left_out = fmax(left_out, scores[b]);
    }
    p.gap[blockIdx.x] = wanted > 0 && wanted < candidates ? cut - left_out : INFINITY;
    chosen[wanted] = candidates;
    chosen_count = wanted + 1;
  }
  __syncthreads();

  // Scores of all keys of the chosen blocks, then softmax and values.
  const auto key_at = [&](int i) { return chosen[i / block] * block + i % block; };
  const int keys = (chosen_count - 1) * block + position % block + 1;
  const auto offset = [&](int token) {
    return ((static_cast<std::int64_t>(pages[token / p.g.page_tokens]) * p.g.kv_heads + kv_head) *
                p.g.page_tokens +
            token % p.g.page_tokens) *
           p.g.dim;
  };
  double best = -INFINITY;
  for (int i = t; i < keys; i += kReferenceThreads) {
    const __nv_bfloat16* k = p.keys + offset(key_at(i));
    double score = 0.0;
    for (int c = 0; c < p.g.dim; ++c)
      score += static_cast<double>(__bfloat162float(k[c])) * __bfloat162float(q[c]);
    scores[i] = score / sqrt(static_cast<double>(p.g.dim));
    best = fmax(best, scores[i]);
  }
  best = block_reduce(best, true);
  double sum = 0.0;
  for (int i = t; i < keys; i += kReferenceThreads) {
    scores[i] = exp(scores[i] - best);
    sum += scores[i];
  }
  sum = block_reduce(sum, false);
  for (int c = t; c < p.g.dim; c += kReferenceThreads) {
    double acc = 0.0;
    for (int i = 0; i < keys; ++i)
      acc += scores[i] * __bfloat162float(p.values[offset(key_at(i)) + c]);
    p.out[static_cast<std::int64_t>(blockIdx.x) * p.g.dim + c] = acc / sum;
  }
}

}  // namespace mobius::hopper
