#pragma once

// Sequences on the device for the checks and benchmarks of kernels/cuda/hopper: random pages, page
// sums, queries, slices.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/hopper/moba.h"

namespace mobius::hopper {

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(2);
}

/// Device memory, freed with the object.
template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::size_t count) : count_(count) {
    if (count > 0) check(cudaMalloc(&data_, count * sizeof(T)), "cudaMalloc");
  }
  explicit DeviceArray(const std::vector<T>& host) : DeviceArray(host.size()) {
    if (count_ > 0) {
      check(cudaMemcpy(data_, host.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), "copy");
    }
  }
  DeviceArray(DeviceArray&& other) noexcept { *this = std::move(other); }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~DeviceArray() { cudaFree(data_); }
  T* get() const { return data_; }
  std::size_t size() const { return count_; }
  void fill_bytes(int value) { check(cudaMemset(data_, value, count_ * sizeof(T)), "memset"); }
  std::vector<T> host() const {
    std::vector<T> out(count_);
    check(cudaMemcpy(out.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), "copy");
    return out;
  }

 private:
  T* data_ = nullptr;
  std::size_t count_ = 0;
};

/// What a sequence's keys look like.
enum class Data : int {
  normal,     ///< standard normal
  one_block,  ///< every query prefers block 1
  spread,     ///< query at position t prefers block t * 7 mod candidates
  equal,      ///< every block holds the same keys: all scores tie
  heavy,      ///< normal times exp(2 normal): long tails
};

__device__ inline float hash_normal(std::uint64_t seed) {
  const auto mix = [](std::uint64_t x) {
    x ^= x >> 30;
    x *= 0xBF58476D1CE4E5B9ull;
    x ^= x >> 27;
    x *= 0x94D049BB133111EBull;
    return x ^ (x >> 31);
  };
  const std::uint64_t h = mix(seed * 0x9E3779B97F4A7C15ull + 1);
  const float u = (static_cast<float>(h >> 40) + 1.0f) * 0x1p-24f;
  const float v = static_cast<float>((h >> 8) & 0xFFFFFF) * 0x1p-24f;
  return sqrtf(-2.0f * logf(u)) * cospif(2.0f * v);
}

__device__ inline float value_of(Data data, std::uint64_t seed) {
  const float x = hash_normal(seed);
  return data == Data::heavy ? x * expf(2.0f * hash_normal(seed ^ 0xABCDEF123ull)) : x;
}

/// A unit-length direction per block: +-1 by hash.
__device__ inline float direction(int block, int column) {
  return hash_normal((static_cast<std::uint64_t>(block) << 20) + column + 77) > 0 ? 1.0f : -1.0f;
}

struct Geometry {
  int q_heads, kv_heads, dim, page_tokens;
};

/// Keys and values of one sequence at positions [0, tokens).
__global__ void fill_pages_kernel(Geometry g, Data data, int tokens, int block,
                                  const std::int32_t* pages, std::uint64_t seed,
                                  __nv_bfloat16* keys, __nv_bfloat16* values) {
  const std::int64_t total = static_cast<std::int64_t>(tokens) * g.kv_heads * g.dim;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; i < total;
       i += static_cast<std::int64_t>(gridDim.x) * blockDim.x) {
    const int column = static_cast<int>(i % g.dim);
    const int head = static_cast<int>(i / g.dim % g.kv_heads);
    const int token = static_cast<int>(i / g.dim / g.kv_heads);
    const std::int64_t at =
        ((static_cast<std::int64_t>(pages[token / g.page_tokens]) * g.kv_heads + head) *
             g.page_tokens +
         token % g.page_tokens) *
            g.dim +
        column;
    std::uint64_t key_seed = seed + static_cast<std::uint64_t>(i);
    if (data == Data::equal) {
      key_seed =
          seed + (static_cast<std::uint64_t>(token % block) * g.kv_heads + head) * g.dim + column;
    }
    float key = value_of(data, key_seed);
    if (data == Data::one_block && token / block == 1) key += direction(0, column);
    if (data == Data::spread) key += direction(token / block, column);
    keys[at] = __float2bfloat16(key);
    values[at] =
        __float2bfloat16(value_of(data, (seed + static_cast<std::uint64_t>(i)) * 3 + 0x5555555));
  }
}

__global__ void fill_queries_kernel(Geometry g, Data data, Slice slice, std::uint64_t seed,
                                    __nv_bfloat16* q) {
  const std::int64_t width = static_cast<std::int64_t>(g.q_heads) * g.dim;
  const std::int64_t total = slice.num_rows * width;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; i < total;
       i += static_cast<std::int64_t>(gridDim.x) * blockDim.x) {
    const int position = slice.first_position + static_cast<int>(i / width);
    const int column = static_cast<int>(i % g.dim);
    // By position, not by row, so that any cut of a prompt has the same queries.
    float x = hash_normal(seed * 31 + 7 + static_cast<std::uint64_t>(position) * width + i % width);
    if (data == Data::one_block) x += direction(0, column);
    if (data == Data::spread && slice.block > 0) {
      x += direction(position * 7 % max(position / slice.block, 1), column);
    }
    q[slice.first_row * width + i] = __float2bfloat16(x);
  }
}

/// Sums of complete pages' keys, tokens one after the other; others are left alone.
__global__ void page_sums_kernel(Geometry g, int tokens, const std::int32_t* pages,
                                 const __nv_bfloat16* keys, float* sums) {
  const int page = static_cast<int>(blockIdx.x);
  if ((page + 1) * g.page_tokens > tokens) return;
  for (int i = static_cast<int>(threadIdx.x); i < g.kv_heads * g.dim;
       i += static_cast<int>(blockDim.x)) {
    const int head = i / g.dim;
    const __nv_bfloat16* k =
        keys +
        ((static_cast<std::int64_t>(pages[page]) * g.kv_heads + head) * g.page_tokens) * g.dim +
        i % g.dim;
    float sum = 0.0f;
    for (int t = 0; t < g.page_tokens; ++t)
      sum += __bfloat162float(k[static_cast<std::int64_t>(t) * g.dim]);
    sums[static_cast<std::int64_t>(pages[page]) * g.kv_heads * g.dim + i] = sum;
  }
}

/// One sequence of a scenario: rows [first_position, first_position + rows).
struct Part {
  int first_position;
  int rows;
  int block;
  int top_k;
};

/// Everything on the device for one call; page ids shuffled, unused memory poisoned with NaN.
struct Scenario {
  Geometry geometry;
  std::vector<Slice> slices;
  int rows = 0;
  int max_context = 0;
  DeviceArray<__nv_bfloat16> keys, values, q;
  DeviceArray<float> sums;
  DeviceArray<std::int32_t> table;
  DeviceArray<Slice> device_slices;
  KvPages kv;
  Limits limits;         ///< for prefill_attention
  Limits decode_limits;  ///< for decode_attention, where every slice has one row
  int table_stride = 0;

  /// With `distinct` below the number of parts, later parts read the pages of earlier ones (and
  /// must have their length): memory for fewer sequences.
  Scenario(Geometry g, const std::vector<Part>& parts, Data data, std::uint64_t seed,
           std::size_t distinct = SIZE_MAX)
      : geometry(g) {
    int pages = 1;  // page 0 stays poison
    std::vector<int> counts;
    for (const Part& part : parts) {
      const int tokens = part.first_position + part.rows;
      counts.push_back((tokens + g.page_tokens - 1) / g.page_tokens);
      if (counts.size() <= distinct) pages += counts.back();
      table_stride = std::max(table_stride, counts.back());
      max_context = std::max(max_context, tokens);
    }
    std::vector<std::int32_t> ids(static_cast<std::size_t>(pages - 1));
    std::iota(ids.begin(), ids.end(), 1);
    std::shuffle(ids.begin(), ids.end(), std::mt19937_64(seed));
    std::vector<std::int32_t> host_table(parts.size() * static_cast<std::size_t>(table_stride), 0);
    std::size_t next = 0;
    limits = {};
    for (std::size_t i = 0; i < parts.size(); ++i) {
      for (int j = 0; j < counts[i] && i < distinct; ++j) {
        host_table[i * static_cast<std::size_t>(table_stride) + static_cast<std::size_t>(j)] =
            ids[next++];
      }
      slices.push_back({rows, parts[i].rows, parts[i].first_position,
                        static_cast<int>(i % distinct), parts[i].block, parts[i].top_k});
      rows += parts[i].rows;
      if (parts[i].block > 0) {
        limits.top_k = std::max(limits.top_k, parts[i].top_k);
        const int blocks = (parts[i].first_position + parts[i].rows - 1) / parts[i].block;
        limits.blocks += blocks;
        decode_limits.blocks = std::max(decode_limits.blocks, blocks);
      }
    }
    const std::size_t page_values = static_cast<std::size_t>(g.kv_heads) * g.page_tokens * g.dim;
    keys = DeviceArray<__nv_bfloat16>(page_values * static_cast<std::size_t>(pages));
    values = DeviceArray<__nv_bfloat16>(page_values * static_cast<std::size_t>(pages));
    sums = DeviceArray<float>(static_cast<std::size_t>(pages) * g.kv_heads * g.dim);
    q = DeviceArray<__nv_bfloat16>(static_cast<std::size_t>(rows) * g.q_heads * g.dim);
    keys.fill_bytes(0xFF);
    values.fill_bytes(0xFF);
    sums.fill_bytes(0xFF);
    table = DeviceArray<std::int32_t>(host_table);
    device_slices = DeviceArray<Slice>(slices);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const int tokens = parts[i].first_position + parts[i].rows;
      const std::int32_t* sequence_pages = table.get() + i * static_cast<std::size_t>(table_stride);
      const std::uint64_t sequence_seed = seed * 1000003 + (i << 40);
      if (i < distinct)
        fill_pages_kernel<<<2048, 256>>>(g, data, tokens, std::max(parts[i].block, g.page_tokens),
                                         sequence_pages, sequence_seed, keys.get(), values.get());
      if (parts[i].rows > 0) {
        fill_queries_kernel<<<2048, 256>>>(g, data, slices[i], sequence_seed, q.get());
      }
      if (counts[i] > 0 && i < distinct) {
        page_sums_kernel<<<counts[i], 256>>>(g, tokens, sequence_pages, keys.get(), sums.get());
      }
    }
    check(cudaDeviceSynchronize(), "fill");
    kv.keys = keys.get();
    kv.values = values.get();
    kv.key_sums = sums.get();
    kv.num_pages = pages;
    kv.page_tokens = g.page_tokens;
    kv.kv_heads = g.kv_heads;
    kv.head_dim = g.dim;
    limits.rows = std::max(rows, 1);
    limits.num_slices = static_cast<int>(slices.size());
    limits.q_heads = g.q_heads;
    limits.kv_heads = g.kv_heads;
    limits.head_dim = g.dim;
    const int most_blocks = decode_limits.blocks;
    decode_limits = limits;
    decode_limits.blocks = most_blocks;
  }

  Rows call(void* out) const {
    Rows r;
    r.q = q.get();
    r.out = out;
    r.rows = rows;
    r.q_heads = geometry.q_heads;
    r.slices = device_slices.get();
    r.num_slices = static_cast<int>(slices.size());
    r.page_table = table.get();
    r.table_stride = table_stride;
    return r;
  }
  std::size_t out_size() const {
    return static_cast<std::size_t>(rows) * geometry.q_heads * geometry.dim;
  }
};

}  // namespace mobius::hopper
