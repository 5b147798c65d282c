#include <cuda_bf16.h>

#include <stdexcept>
#include <string>
#include <type_traits>

#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/kv_cache.h"
#include "kernels/fp8.h"

namespace mobius {
namespace {

constexpr std::size_t kAlignment = 256;
constexpr int kThreads = 256;
constexpr int kMaxHeadDim = 128;
/// Keys of a page that pass through shared memory at a time.
constexpr int kChunkRows = 64;

std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

struct Layout {
  std::size_t cells_bytes = 0;  ///< keys, and again values
  std::size_t sums_bytes = 0;
  std::size_t centroids_bytes = 0;
  std::size_t widened_bytes = 0;
  std::size_t layer_bytes = 0;  ///< keys of a layer
  std::size_t total() const {
    return 2 * cells_bytes + sums_bytes + centroids_bytes + widened_bytes;
  }
};

Layout layout_of(const KvShape& shape) {
  const auto refuse = [](const std::string& what) {
    throw std::runtime_error("KV cache: " + what);
  };
  if (shape.dtype != DType::bf16) {
    refuse("type is " + std::string(name_of(shape.dtype)) + ", must be bf16 with CUDA");
  }
  if (shape.head_dim != 32 && shape.head_dim != 64 && shape.head_dim != 128) {
    refuse("head_dim is " + std::to_string(shape.head_dim) + ", must be 32, 64 or 128 with CUDA");
  }
  check_pages(shape);
  const auto layers = static_cast<std::size_t>(shape.num_layers);
  const auto head_dim = static_cast<std::size_t>(shape.head_dim);
  const std::size_t page_heads =
      static_cast<std::size_t>(shape.num_pages) * static_cast<std::size_t>(shape.kv_heads);
  const auto page_tokens = static_cast<std::size_t>(shape.page_tokens);
  const std::size_t vectors = layers * page_heads * head_dim;
  Layout layout;
  layout.layer_bytes = page_heads * page_tokens * (shape.fp8 ? head_dim + 1 : 2 * head_dim);
  layout.cells_bytes = aligned(layers * layout.layer_bytes);
  if (shape.fp8) {
    layout.widened_bytes =
        2 * aligned(static_cast<std::size_t>(shape.num_pages) * page_tokens * head_dim * 2);
  }
  layout.sums_bytes = aligned(vectors * sizeof(float));
  layout.centroids_bytes = shape.centroid_block > 0 ? aligned(vectors * 2) : 0;
  return layout;
}

struct RopeArguments {
  __nv_bfloat16* q_out;
  const float* qkv;
  __nv_bfloat16* keys;
  __nv_bfloat16* values;
  float* sums;
  const float* inverse_frequencies;
  const std::int32_t* segments;
  const std::int32_t* pages;
  std::int32_t max_pages;
  std::int32_t page_tokens;
  std::int32_t heads;
  std::int32_t kv_heads;
  std::int32_t head_dim;
  __nv_bfloat16* centroids;
  std::int32_t centroid_block;  ///< 0: not this kernel's
};

/// Cosine and sine of position * frequency. The angle reaches 1e6, where a float knows it to 0.06:
/// it is reduced to one turn in double.
__device__ void rotation(std::int32_t position, float frequency, float* cosine, float* sine) {
  constexpr double kTurn = 6.283185307179586476925286766559;
  const double angle = static_cast<double>(position) * static_cast<double>(frequency);
  const double turns = rint(angle * (1.0 / kTurn));
  sincosf(static_cast<float>(fma(-turns, kTurn, angle)), sine, cosine);
}

/// One dimension of a block's centroid (moba.md, rule 2): its pages' sums, one after the other.
/// `table` is that of its `count` pages, `last` the last one's sum.
__device__ __nv_bfloat16 centroid_of(const float* sums, const std::int32_t* table, int count,
                                     float last, int kv_heads, int head, int head_dim, int own,
                                     int block) {
  float sum = 0;
  for (int i = 0; i + 1 < count; ++i) {
    sum += sums[(std::int64_t{table[i]} * kv_heads + head) * head_dim + own];
  }
  return __float2bfloat16_rn(__fdiv_rn(sum + last, static_cast<float>(block)));
}

/// Quantises a vector (moba.md, "Quantised keys and values"): one warp, lane l has its dimensions
/// l * kEach and the next. Writes codes and scale to the slot of its record, and returns in
/// `values` what is left of the values.
template <int kEach>
__device__ void quantise(float (&values)[kEach], std::uint8_t* record, int slot) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  std::uint32_t largest = 0;  // as bits, which order magnitudes, NaN above all
#pragma unroll
  for (const float value : values) largest = max(largest, __float_as_uint(value) & 0x7FFFFFFFU);
  largest = __reduce_max_sync(0xffffffffU, largest);
  const std::uint8_t byte = kv_scale_byte(__uint_as_float(largest));
  const float scale = kv_scale(byte);
  std::uint8_t* to = record + (slot * 32 + lane) * kEach;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const std::uint8_t code = kv_code(values[i], byte);
    values[i] = __fmul_rn(from_e4m3(code), scale);
    to[i] = code;
  }
  if (lane == 0) record[hopper::kRecordTokens * 32 * kEach + slot] = byte;
}

/// The KV heads' part of rope_append_kernel where the cache is fp8: one block, one head's keys and
/// values in one segment. A warp has a vector; what is left of keys is summed up by one thread for
/// each dimension.
template <int kDim, class Turn>
__device__ void append_records(const RopeArguments& a, const float* in, std::int64_t columns,
                               int rows, int first_position, std::int64_t vector, const Turn& turn,
                               float* chunk, float* sum) {
  constexpr int kEach = kDim / 32;
  constexpr int kHalf = kDim / 2;
  constexpr int kWarps = kThreads / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int own = static_cast<int>(threadIdx.x);
  const int first_slot = first_position % a.page_tokens;
  const float* value = in + std::int64_t{a.kv_heads} * kDim;
  const std::int64_t records = vector * (a.page_tokens / hopper::kRecordTokens);
  const auto record_of = [&](__nv_bfloat16* operand, int slot) {
    return reinterpret_cast<std::uint8_t*>(operand) +
           (records + slot / hopper::kRecordTokens) * hopper::record_bytes(kDim);
  };
  for (int begin = 0; begin < rows; begin += kChunkRows) {
    const int count = min(kChunkRows, rows - begin);
    for (int at = own; at < count * kHalf; at += kThreads) {
      const int row = at / kHalf;
      const int i = at % kHalf;
      float cosine;
      float sine;
      turn(begin * kHalf + at, &cosine, &sine);
      const float x = in[(begin + row) * columns + i];
      const float y = in[(begin + row) * columns + i + kHalf];
      chunk[row * kDim + i] = __fmul_rn(x, cosine) - __fmul_rn(y, sine);
      chunk[row * kDim + i + kHalf] = __fmul_rn(y, cosine) + __fmul_rn(x, sine);
    }
    __syncthreads();
    // Keys, then values.
    for (int at = warp; at < 2 * count; at += kWarps) {
      const bool is_key = at < count;
      const int row = is_key ? at : at - count;
      const int slot = first_slot + begin + row;
      float* key = chunk + row * kDim + lane * kEach;
      float values[kEach];
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        values[i] = is_key ? key[i] : value[(begin + row) * columns + lane * kEach + i];
      }
      quantise(values, record_of(is_key ? a.keys : a.values, slot), slot % hopper::kRecordTokens);
      if (!is_key) continue;
#pragma unroll
      for (int i = 0; i < kEach; ++i) key[i] = values[i];
    }
    __syncthreads();
    if (own < kDim) {
      for (int row = 0; row < count; ++row) *sum += chunk[row * kDim + own];
    }
    __syncthreads();
  }
}

/// One block rotates one head's vectors in one segment, the rows of a step that share a page. Query
/// heads come first, then KV heads, which also append to the page.
template <bool kFp8>
__global__ void rope_append_kernel(RopeArguments a) {
  using Chunk = std::conditional_t<kFp8, float, __nv_bfloat16>;
  __shared__ Chunk chunk[kChunkRows * kMaxHeadDim];
  hopper::release_next_kernel();
  const std::int32_t* segment = a.segments + 4 * blockIdx.x;
  const int slice = segment[0];
  const int first_row = segment[1];
  const int rows = segment[2];
  const int first_position = segment[3];
  const int half = a.head_dim / 2;
  const int head = static_cast<int>(blockIdx.y);
  const std::int64_t columns = std::int64_t{a.heads + 2 * a.kv_heads} * a.head_dim;
  const float* in = a.qkv + first_row * columns + head * a.head_dim;
  const int pairs = rows * half;
  // What the kernel before does not write is read while it ends: for decode's one row, latencies
  // are all there is.
  const int own = static_cast<int>(threadIdx.x);
  float first_cosine;
  float first_sine;
  rotation(first_position + own / half, a.inverse_frequencies[own % half], &first_cosine,
           &first_sine);
  const std::int64_t page =
      a.pages[std::int64_t{slice} * a.max_pages + first_position / a.page_tokens];
  hopper::wait_previous_kernel();
  /// Of the at-th pair of the segment, by the thread that has it.
  const auto turn = [&](int at, float* cosine, float* sine) {
    if (at == own) {
      *cosine = first_cosine;
      *sine = first_sine;
    } else {
      rotation(first_position + at / half, a.inverse_frequencies[at % half], cosine, sine);
    }
  };
  if (head < a.heads) {
    __nv_bfloat16* out =
        a.q_out + (std::int64_t{first_row} * a.heads + head) * std::int64_t{a.head_dim};
    for (int at = static_cast<int>(threadIdx.x); at < pairs; at += kThreads) {
      const int row = at / half;
      const int i = at % half;
      float cosine;
      float sine;
      turn(at, &cosine, &sine);
      const float x = in[row * columns + i];
      const float y = in[row * columns + i + half];
      __nv_bfloat16* to = out + std::int64_t{row} * a.heads * a.head_dim;
      to[i] = __float2bfloat16_rn(__fmul_rn(x, cosine) - __fmul_rn(y, sine));
      to[i + half] = __float2bfloat16_rn(__fmul_rn(y, cosine) + __fmul_rn(x, sine));
    }
    return;
  }

  const int kv_head = head - a.heads;
  const int slot = first_position % a.page_tokens;
  const std::int64_t vector = page * a.kv_heads + kv_head;
  [[maybe_unused]] const std::int64_t cell = (vector * a.page_tokens + slot) * a.head_dim;
  [[maybe_unused]] const float* value = in + std::int64_t{a.kv_heads} * a.head_dim;
  // A page's first slot starts its sum anew: tokens one after the other (moba.md, rule 2).
  float sum = own < a.head_dim && slot > 0 ? a.sums[vector * a.head_dim + own] : 0.0F;
  if constexpr (kFp8) {
    const auto append = [&]<int kDim>() {
      append_records<kDim>(a, in, columns, rows, first_position, vector, turn, chunk, &sum);
    };
    if (a.head_dim == 128) {
      append.template operator()<128>();
    } else if (a.head_dim == 64) {
      append.template operator()<64>();
    } else {
      append.template operator()<32>();
    }
  } else {
    for (int begin = 0; begin < rows; begin += kChunkRows) {
      const int count = min(kChunkRows, rows - begin);
      for (int at = static_cast<int>(threadIdx.x); at < count * half; at += kThreads) {
        const int row = at / half;
        const int i = at % half;
        float cosine;
        float sine;
        turn(begin * half + at, &cosine, &sine);
        const float x = in[(begin + row) * columns + i];
        const float y = in[(begin + row) * columns + i + half];
        const __nv_bfloat16 low = __float2bfloat16_rn(__fmul_rn(x, cosine) - __fmul_rn(y, sine));
        const __nv_bfloat16 high = __float2bfloat16_rn(__fmul_rn(y, cosine) + __fmul_rn(x, sine));
        chunk[row * a.head_dim + i] = low;
        chunk[row * a.head_dim + i + half] = high;
        __nv_bfloat16* to = a.keys + cell + std::int64_t{begin + row} * a.head_dim;
        to[i] = low;
        to[i + half] = high;
      }
      for (int at = static_cast<int>(threadIdx.x); at < count * a.head_dim; at += kThreads) {
        const int row = begin + at / a.head_dim;
        const int i = at % a.head_dim;
        a.values[cell + std::int64_t{row} * a.head_dim + i] =
            __float2bfloat16_rn(value[row * columns + i]);
      }
      __syncthreads();
      if (own < a.head_dim) {
        for (int row = 0; row < count; ++row)
          sum += __bfloat162float(chunk[row * a.head_dim + own]);
      }
      __syncthreads();
    }
  }
  if (own >= a.head_dim) return;
  a.sums[vector * a.head_dim + own] = sum;
  const int end = first_position + rows;
  if (a.centroid_block == 0 || end % a.centroid_block != 0) return;
  const std::int32_t* table =
      a.pages + std::int64_t{slice} * a.max_pages + (end - a.centroid_block) / a.page_tokens;
  a.centroids[vector * a.head_dim + own] =
      centroid_of(a.sums, table, a.centroid_block / a.page_tokens, sum, a.kv_heads, kv_head,
                  a.head_dim, own, a.centroid_block);
}

/// Stores the centroid of a block whose last token is a segment's last, where other segments of the
/// step may have written the block's earlier pages.
__global__ void centroid_kernel(__nv_bfloat16* centroids, const float* sums,
                                const std::int32_t* segments, const std::int32_t* pages,
                                std::int32_t max_pages, std::int32_t page_tokens,
                                std::int32_t block, std::int32_t kv_heads, std::int32_t head_dim) {
  hopper::join_chain();
  const std::int32_t* segment = segments + 4 * blockIdx.x;
  const int end = segment[3] + segment[2];
  if (end % block != 0) return;
  const std::int32_t* table =
      pages + std::int64_t{segment[0]} * max_pages + (end - block) / page_tokens;
  const int head = static_cast<int>(blockIdx.y);
  const int own = static_cast<int>(threadIdx.x);
  const int count = block / page_tokens;
  const std::int64_t last = (std::int64_t{table[count - 1]} * kv_heads + head) * head_dim + own;
  centroids[last] =
      centroid_of(sums, table, count, sums[last], kv_heads, head, head_dim, own, block);
}

}  // namespace

std::size_t cuda_kv_bytes(const KvShape& shape) {
  return layout_of(shape).total();
}

CudaKvPool::CudaKvPool(const KvShape& shape) : KvPool(shape) {
  const Layout layout = layout_of(shape);
  memory_ = allocate_device(layout.total(), "the KV cache");
  MOBIUS_CUDA(cudaMemset(memory_.get(), 0, layout.total()));
  MOBIUS_CUDA(cudaDeviceSynchronize());  // the memset's stream is not the backend's
  auto* bytes = static_cast<std::byte*>(memory_.get());
  keys_ = reinterpret_cast<std::uint16_t*>(bytes);
  values_ = reinterpret_cast<std::uint16_t*>(bytes + layout.cells_bytes);
  sums_ = reinterpret_cast<float*>(bytes + 2 * layout.cells_bytes);
  if (layout.centroids_bytes > 0) {
    centroids_ =
        reinterpret_cast<std::uint16_t*>(bytes + 2 * layout.cells_bytes + layout.sums_bytes);
  }
  layer_cells_ = layout.layer_bytes / sizeof(std::uint16_t);
  widened_bytes_ = layout.widened_bytes;
  if (shape.fp8) widened_ = bytes + layout.total() - layout.widened_bytes;
}

void launch_rope_append(Tensor q_out, Tensor qkv, CudaKvPool& kv, std::int32_t layer,
                        const float* inverse_frequencies, const HostStep& host,
                        const DeviceStep& step, cudaStream_t stream) {
  const KvShape& shape = kv.shape();
  if (host.segments == 0) return;
  const auto heads = static_cast<std::int32_t>(q_out.cols / shape.head_dim);
  // A segment of one row is alone in its block: the pages before it are earlier steps'.
  const bool alone = shape.centroid_block > 0 && host.single == host.rows;
  const RopeArguments arguments{
      .q_out = static_cast<__nv_bfloat16*>(q_out.data),
      .qkv = static_cast<const float*>(qkv.data),
      .keys = reinterpret_cast<__nv_bfloat16*>(kv.keys(layer)),
      .values = reinterpret_cast<__nv_bfloat16*>(kv.values(layer)),
      .sums = kv.sums(layer),
      .inverse_frequencies = inverse_frequencies,
      .segments = step.segments,
      .pages = step.pages,
      .max_pages = step.max_pages,
      .page_tokens = shape.page_tokens,
      .heads = heads,
      .kv_heads = shape.kv_heads,
      .head_dim = shape.head_dim,
      .centroids = alone ? reinterpret_cast<__nv_bfloat16*>(kv.centroids(layer)) : nullptr,
      .centroid_block = alone ? shape.centroid_block : 0,
  };
  const dim3 grid(static_cast<unsigned>(host.segments),
                  static_cast<unsigned>(heads + shape.kv_heads));
  if (shape.fp8) {
    launch_in_chain<rope_append_kernel<true>>(grid, kThreads, stream, arguments);
  } else {
    launch_in_chain<rope_append_kernel<false>>(grid, kThreads, stream, arguments);
  }
  if (shape.centroid_block == 0 || alone) return;
  const dim3 blocks(static_cast<unsigned>(host.segments), static_cast<unsigned>(shape.kv_heads));
  launch_in_chain<centroid_kernel>(blocks, static_cast<unsigned>(shape.head_dim), stream,
                                   reinterpret_cast<__nv_bfloat16*>(kv.centroids(layer)),
                                   kv.sums(layer), step.segments, step.pages, step.max_pages,
                                   shape.page_tokens, shape.centroid_block, shape.kv_heads,
                                   shape.head_dim);
}

}  // namespace mobius
