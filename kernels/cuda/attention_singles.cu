#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/chain.cuh"

namespace mobius {
namespace {

/// Blocks take spans (of a row, a KV head) in turn. Inside, warps take every fourth tile of keys;
/// their states merge in the order of warps.
template <int D, bool kFp8>
__global__ void __launch_bounds__(kTileWarps * 32)
    singles_kernel(const __grid_constant__ AttentionCall call) {
  __shared__ float merged[kTileWarps][kWarpRows][D];
  __shared__ float states[kTileWarps][kWarpRows][2];
  hopper::join_chain();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int gqa = call.heads / call.kv_heads;
  const int items = call.step.single_spans[call.single] * call.kv_heads;
  const float scale = softmax_scale<D>();
  for (int item = static_cast<int>(blockIdx.x); item < items; item += static_cast<int>(gridDim.x)) {
    const int kv_head = item % call.kv_heads;
    const Span span = find_span(call, item / call.kv_heads);
    const int slice = call.step.row_slice[call.step.single_rows[span.single]];
    const WarpRow rows[2] = {warp_row(call, slice, 0, kv_head, lane / 4),
                             warp_row(call, slice, 0, kv_head, lane / 4 + 8)};
    const int block = block_at(call, slice);
    if (block > 0 ? call.skip_sparse_singles : call.skip_full_singles) continue;
    const int position = call.step.first_position[slice];
    const int length = span_keys(position + 1);
    const int begin = span.index * length;
    const int end = min(begin + length, position + 1);
    QueryFragments<D> q;
    q.load(call, rows[0], rows[1]);
    const SequenceReader<D, kFp8> sequence(call, slice, kv_head, position + 1);
    SoftmaxRows<D> state;
    state.clear();
    for (int key = begin + warp * kTileKeys; key < end; key += kTileWarps * kTileKeys) {
      int limits[2][2];
      bool any = false;
      for (int h = 0; h < 2; ++h) {
        for (int r = 0; r < 2; ++r) {
          bool attended = rows[r].row >= 0;
          if (attended && block > 0) {
            const int b = (key + 16 * h) / block;
            attended = b >= position / block || is_selected(call, rows[r], b);
          }
          limits[h][r] = attended ? end - 1 : -1;
          any = any || attended;
        }
      }
      if (!__any_sync(kFullMask, any)) continue;
      state.attend(q, sequence, key, limits, scale);
    }
    state.finish();

#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = lane / 4 + 8 * r;
#pragma unroll
      for (int g = 0; g < SoftmaxRows<D>::kGroups; ++g) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
#pragma unroll
          for (int j = 0; j < SoftmaxRows<D>::kVector; ++j) {
            merged[warp][row][SoftmaxRows<D>::dimension(g, e) + j] = state.out[g][j][2 * r + e];
          }
        }
      }
      if (lane % 4 == 0) {
        states[warp][row][0] = state.maximum[r];
        states[warp][row][1] = state.sum[r];
      }
    }
    __syncthreads();
    for (int at = static_cast<int>(threadIdx.x); at < gqa * D; at += kTileWarps * 32) {
      const int row = at / D;
      const int d = at % D;
      float maximum = -INFINITY;
      for (int w = 0; w < kTileWarps; ++w) maximum = fmaxf(maximum, states[w][row][0]);
      const float shift = maximum == -INFINITY ? 0.0F : maximum;
      float value = 0.0F;
      float sum = 0.0F;
      for (int w = 0; w < kTileWarps; ++w) {
        const float weight = exp2f(states[w][row][0] - shift);
        value += weight * merged[w][row][d];
        sum += weight * states[w][row][1];
      }
      const std::int64_t to =
          (std::int64_t{span.single} * call.heads + kv_head * gqa + row) * kMaxSpans + span.index;
      call.workspace.partial_out[to * D + d] = value;
      if (d == 0) {
        call.workspace.partial_state[2 * to] = maximum;
        call.workspace.partial_state[2 * to + 1] = sum;
      }
    }
    __syncthreads();
  }
}

/// Merges the spans of one row and head, in order. One thread per dimension.
template <int D>
__global__ void merge_kernel(const __grid_constant__ AttentionCall call) {
  __shared__ float weights[kMaxSpans];
  hopper::join_chain();
  const int single = static_cast<int>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y);
  const int d = static_cast<int>(threadIdx.x);
  const std::int64_t row = call.step.single_rows[single];
  const bool sparse = block_at(call, call.step.row_slice[row]) > 0;
  if (sparse ? call.skip_sparse_singles : call.skip_full_singles) return;
  const int spans = call.step.single_spans[single + 1] - call.step.single_spans[single];
  const std::int64_t from = (std::int64_t{single} * call.heads + head) * kMaxSpans;
  const float* state = call.workspace.partial_state + 2 * from;
  const float* values = call.workspace.partial_out + from * D + d;
  float maximum = -INFINITY;
  for (int i = 0; i < spans; ++i) maximum = fmaxf(maximum, state[2 * i]);
  for (int i = d; i < spans; i += D) weights[i] = exp2f(state[2 * i] - maximum);
  __syncthreads();
  float value = 0.0F;
  float sum = 0.0F;
#pragma unroll 8
  for (int i = 0; i < spans; ++i) {
    value += weights[i] * values[std::int64_t{i} * D];
    sum += weights[i] * state[2 * i + 1];
  }
  const __nv_bfloat16 rounded = __float2bfloat16_rn(value / sum);
  call.out[(row * call.heads + head) * D + d] = reinterpret_cast<const std::uint16_t&>(rounded);
}

template <int D>
void launch(const AttentionCall& call, std::int32_t blocks, cudaStream_t stream) {
  const auto grid = static_cast<unsigned>(blocks);
  if (call.fp8) {
    launch_in_chain<singles_kernel<D, true>, Memory::for_loads>(grid, kTileWarps * 32, stream,
                                                                call);
  } else {
    launch_in_chain<singles_kernel<D, false>, Memory::for_loads>(grid, kTileWarps * 32, stream,
                                                                 call);
  }
}

template <int D>
void merge(const AttentionCall& call, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(call.single), static_cast<unsigned>(call.heads));
  launch_in_chain<merge_kernel<D>>(grid, D, stream, call);
}

}  // namespace

void launch_singles(const AttentionCall& call, std::int32_t head_dim, std::int32_t blocks,
                    cudaStream_t stream) {
  switch (head_dim) {
    case 32: launch<32>(call, blocks, stream); break;
    case 64: launch<64>(call, blocks, stream); break;
    default: launch<128>(call, blocks, stream); break;
  }
}

void launch_merge(const AttentionCall& call, std::int32_t head_dim, cudaStream_t stream) {
  switch (head_dim) {
    case 32: merge<32>(call, stream); break;
    case 64: merge<64>(call, stream); break;
    default: merge<128>(call, stream); break;
  }
}

}  // namespace mobius
