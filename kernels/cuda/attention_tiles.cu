#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/check.h"

namespace mobius {
namespace {

/// One block per tile and KV head; its warps do not meet. Keys are walked in ascending order from
/// position 0 in steps that do not depend on where the tile or the slice begins, and keys that a
/// row does not attend leave its state as it is: so a row's bits do not depend on how the prompt
/// was cut.
template <int D, bool kFp8>
__global__ void __launch_bounds__(kTileWarps * 32)
    tiles_kernel(const __grid_constant__ AttentionCall call) {
  // Late positions have the most keys: first.
  const int tile = call.tiles - 1 - static_cast<int>(blockIdx.x);
  const int slice = call.step.tiles[2 * tile];
  const int kv_head = static_cast<int>(blockIdx.y);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int queries = warp_queries(call.heads / call.kv_heads);
  const int first_query = call.step.tiles[2 * tile + 1] + warp * queries;
  const int last_query = min(first_query + queries, call.step.num_rows[slice]) - 1;
  if (first_query > last_query) return;
  const int last_position = call.step.first_position[slice] + last_query;

  const WarpRow rows[2] = {warp_row(call, slice, first_query, kv_head, lane / 4),
                           warp_row(call, slice, first_query, kv_head, lane / 4 + 8)};
  QueryFragments<D> q;
  q.load(call, rows[0], rows[1]);
  const SequenceReader<D, kFp8> sequence(call, slice, kv_head, last_position + 1);
  const float scale = softmax_scale<D>();
  SoftmaxRows<D> state;
  state.clear();

  const int policy_block = block_at(call, slice);
  const int block = policy_block > 0 ? policy_block : last_position + 1;
  for (int b = 0; b <= last_position / block; ++b) {
    const int begin = b * block;
    int limit[2];
    for (int r = 0; r < 2; ++r) {
      limit[r] = -1;
      if (rows[r].row < 0 || rows[r].position < begin) continue;
      const bool attended = rows[r].position / block == b || is_selected(call, rows[r], b);
      if (attended) limit[r] = min(rows[r].position, begin + block - 1);
    }
    const int farthest = __reduce_max_sync(kFullMask, max(limit[0], limit[1]));
    const int limits[2][2] = {{limit[0], limit[1]}, {limit[0], limit[1]}};
    for (int key = begin; key <= farthest; key += kTileKeys) {
      state.attend(q, sequence, key, limits, scale);
    }
  }
  state.finish();

  for (int r = 0; r < 2; ++r) {
    if (rows[r].row < 0) continue;
    const float inverse = 1.0F / state.sum[r];
    std::uint16_t* out = call.out + (rows[r].row * call.heads + rows[r].head) * D;
#pragma unroll
    for (int g = 0; g < SoftmaxRows<D>::kGroups; ++g) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        auto* to = reinterpret_cast<std::uint32_t*>(out + SoftmaxRows<D>::dimension(g, e));
#pragma unroll
        for (int j = 0; j < SoftmaxRows<D>::kVector; j += 2) {
          to[j / 2] = pack_bf16(state.out[g][j][2 * r + e] * inverse,
                                state.out[g][j + 1][2 * r + e] * inverse);
        }
      }
    }
  }
}

template <int D>
void launch(const AttentionCall& call, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(call.tiles), static_cast<unsigned>(call.kv_heads));
  constexpr unsigned kThreads = kTileWarps * 32;
  if (call.fp8) {
    tiles_kernel<D, true><<<grid, kThreads, 0, stream>>>(call);
  } else {
    tiles_kernel<D, false><<<grid, kThreads, 0, stream>>>(call);
  }
  MOBIUS_CUDA_LAUNCHED();
}

}  // namespace

void launch_tiles(const AttentionCall& call, std::int32_t head_dim, cudaStream_t stream) {
  switch (head_dim) {
    case 32: launch<32>(call, stream); break;
    case 64: launch<64>(call, stream); break;
    default: launch<128>(call, stream); break;
  }
}

}  // namespace mobius
