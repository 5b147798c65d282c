#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/chain.cuh"

// Full attention of one-row slices (decode). Keys and values are read once for up to four query
// heads of their KV head and nothing is read again, so bandwidth is the limit: plain FMAs, and as
// many bytes in flight as registers hold. A warp reads 16 bytes a lane: 2 keys of 128 dimensions at
// a time, kSteps times over before it waits.

namespace mobius {
namespace {

constexpr int kStreamWarps = 4;
constexpr int kSteps = 8;
constexpr int kBlocksPerProcessor = 3;
constexpr unsigned kBlocks = 132 * kBlocksPerProcessor;
constexpr float kNothing = -INFINITY;

__device__ inline void unpack(const uint4& packed, float (&values)[8]) {
  const std::uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = low_bf16(words[i]);
    values[2 * i + 1] = high_bf16(words[i]);
  }
}

/// A lane's 8 dimensions of what H heads have summed up, against running maxima in log2 units.
template <int H>
struct Sums {
  float out[H][8];
  float maximum[H];
  float sum[H];

  __device__ void clear() {
#pragma unroll
    for (int h = 0; h < H; ++h) {
      maximum[h] = kNothing;
      sum[h] = 0.0F;
#pragma unroll
      for (int i = 0; i < 8; ++i) out[h][i] = 0.0F;
    }
  }

  /// Merges what lanes `distance` apart hold of other keys.
  __device__ void merge_across(int distance) {
#pragma unroll
    for (int h = 0; h < H; ++h) {
      const float other_maximum = __shfl_xor_sync(kFullMask, maximum[h], distance);
      const float other_sum = __shfl_xor_sync(kFullMask, sum[h], distance);
      const float best = fmaxf(maximum[h], other_maximum);
      const float shift = best == kNothing ? 0.0F : best;
      const float mine = exp2f(maximum[h] - shift);
      const float theirs = exp2f(other_maximum - shift);
      maximum[h] = best;
      sum[h] = sum[h] * mine + other_sum * theirs;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float other = __shfl_xor_sync(kFullMask, out[h][i], distance);
        out[h][i] = out[h][i] * mine + other * theirs;
      }
    }
  }
};

/// One batch of keys and values, on their way from memory.
template <int D>
struct Batch {
  static constexpr int kLanes = D / 8;  ///< that share a key
  static constexpr int kKeysAtOnce = 32 / kLanes;
  static constexpr int kKeys = kSteps * kKeysAtOnce;
  uint4 keys[kSteps];
  uint4 values[kSteps];

  __device__ void load(const AttentionCall& call, std::int64_t first) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      keys[i] = __ldg(reinterpret_cast<const uint4*>(call.keys + first + i * kKeysAtOnce * D));
    }
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      values[i] = __ldg(reinterpret_cast<const uint4*>(call.values + first + i * kKeysAtOnce * D));
    }
  }
};

/// `key`: this lane's first; those at `end` and after are not there.
template <int D, int H>
__device__ inline void attend(Sums<H>& sums, const Batch<D>& batch, const float (&query)[H][8],
                              int key, int end) {
  using B = Batch<D>;
  float score[H][kSteps];
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    float k[8];
    unpack(batch.keys[i], k);
#pragma unroll
    for (int h = 0; h < H; ++h) {
      float dot = 0.0F;
#pragma unroll
      for (int c = 0; c < 8; ++c) dot = fmaf(query[h][c], k[c], dot);
#pragma unroll
      for (int d = 1; d < B::kLanes; d *= 2) dot += __shfl_xor_sync(kFullMask, dot, d);
      score[h][i] = key + i * B::kKeysAtOnce < end ? dot : kNothing;
    }
  }
#pragma unroll
  for (int h = 0; h < H; ++h) {
    float best = sums.maximum[h];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) best = fmaxf(best, score[h][i]);
    const float shift = best == kNothing ? 0.0F : best;
    const float rescale = exp2f(sums.maximum[h] - shift);
    sums.maximum[h] = best;
    sums.sum[h] *= rescale;
#pragma unroll
    for (int c = 0; c < 8; ++c) sums.out[h][c] *= rescale;
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      score[h][i] = exp2f(score[h][i] - shift);
      sums.sum[h] += score[h][i];
    }
  }
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    if (key + i * B::kKeysAtOnce >= end) break;  // what lies there may be NaN
    float v[8];
    unpack(batch.values[i], v);
#pragma unroll
    for (int h = 0; h < H; ++h) {
#pragma unroll
      for (int c = 0; c < 8; ++c) sums.out[h][c] = fmaf(score[h][i], v[c], sums.out[h][c]);
    }
  }
}

/// Blocks take spans (of a row, a KV head, H of its query heads) in turn; warps take every fourth
/// batch of a span. What comes out follows from the row alone.
template <int D, int H>
__global__ void __launch_bounds__(kStreamWarps * 32, kBlocksPerProcessor)
    stream_kernel(const __grid_constant__ AttentionCall call) {
  using B = Batch<D>;
  __shared__ float outs[kStreamWarps][H][D];
  __shared__ float states[kStreamWarps][H][2];
  hopper::join_chain();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int column = lane % B::kLanes * 8;
  const int gqa = call.heads / call.kv_heads;
  const int groups = call.heads / H;
  const int items = call.step.single_spans[call.single] * groups;
  const float scale = softmax_scale<D>();
  for (int item = static_cast<int>(blockIdx.x); item < items; item += static_cast<int>(gridDim.x)) {
    const int first_head = item % groups * H;
    const int kv_head = first_head / gqa;
    const Span span = find_span(call, item / groups);
    const std::int64_t row = call.step.single_rows[span.single];
    const int slice = call.step.row_slice[row];
    if (block_at(call, slice) > 0) continue;
    const int position = call.step.first_position[slice];
    const int length = span_keys(position + 1);
    const int begin = span.index * length;
    const int end = min(begin + length, position + 1);
    float query[H][8];
#pragma unroll
    for (int h = 0; h < H; ++h) {
      unpack(*reinterpret_cast<const uint4*>(call.q + (row * call.heads + first_head + h) * D +
                                             column),
             query[h]);
#pragma unroll
      for (float& x : query[h]) x *= scale;
    }
    const SequenceReader<D> sequence(call, slice, kv_head, position + 1);
    Sums<H> sums;
    sums.clear();
    for (int key = begin + warp * B::kKeys; key < end; key += kStreamWarps * B::kKeys) {
      // A batch begins at a multiple of its keys, which divides a page: it lies in one.
      Batch<D> batch;
      batch.load(call, sequence.offset(key) + lane / B::kLanes * D + column);
      attend(sums, batch, query, key + lane / B::kLanes, end);
    }
#pragma unroll
    for (int distance = B::kLanes; distance < 32; distance *= 2) sums.merge_across(distance);

    if (lane < B::kLanes) {
#pragma unroll
      for (int h = 0; h < H; ++h) {
#pragma unroll
        for (int c = 0; c < 8; ++c) outs[warp][h][column + c] = sums.out[h][c];
        if (lane == 0) {
          states[warp][h][0] = sums.maximum[h];
          states[warp][h][1] = sums.sum[h];
        }
      }
    }
    __syncthreads();
    for (int at = static_cast<int>(threadIdx.x); at < H * D; at += kStreamWarps * 32) {
      const int h = at / D;
      float maximum = kNothing;
#pragma unroll
      for (int w = 0; w < kStreamWarps; ++w) maximum = fmaxf(maximum, states[w][h][0]);
      const float shift = maximum == kNothing ? 0.0F : maximum;
      float value = 0.0F;
      float sum = 0.0F;
#pragma unroll
      for (int w = 0; w < kStreamWarps; ++w) {
        const float weight = exp2f(states[w][h][0] - shift);
        value += weight * outs[w][h][at % D];
        sum += weight * states[w][h][1];
      }
      const std::int64_t to =
          (std::int64_t{span.single} * call.heads + first_head + h) * kMaxSpans + span.index;
      call.workspace.partial_out[to * D + at % D] = value;
      if (at % D == 0) {
        call.workspace.partial_state[2 * to] = maximum;
        call.workspace.partial_state[2 * to + 1] = sum;
      }
    }
    __syncthreads();
  }
}

template <int D>
void launch(const AttentionCall& call, cudaStream_t stream) {
  const int gqa = call.heads / call.kv_heads;
  const dim3 threads(kStreamWarps * 32);
  const dim3 blocks(kBlocks);
  if (gqa % 4 == 0) {
    launch_in_chain<stream_kernel<D, 4>, Memory::for_loads>(blocks, threads, stream, call);
  } else if (gqa % 2 == 0) {
    launch_in_chain<stream_kernel<D, 2>, Memory::for_loads>(blocks, threads, stream, call);
  } else {
    launch_in_chain<stream_kernel<D, 1>, Memory::for_loads>(blocks, threads, stream, call);
  }
}

}  // namespace

bool takes_streams(const KvShape& kv) {
  return (kv.head_dim == 64 || kv.head_dim == 128) && kv.page_tokens % (kSteps * 4) == 0;
}

void launch_streams(const AttentionCall& call, std::int32_t head_dim, cudaStream_t stream) {
  if (head_dim == 64) return launch<64>(call, stream);
  launch<128>(call, stream);
}

}  // namespace mobius
