#include <cuda_bf16.h>

#include "kernels/cuda/hopper/gate_tile.cuh"
#include "kernels/cuda/hopper/launch.h"
#include "kernels/cuda/hopper/ptx.cuh"

namespace mobius::hopper {
namespace {

/// One block of threads per gating tile; a pair's row of d columns takes d / 8 lanes.
template <int kDim>
__global__ void __launch_bounds__(256)
    combine_kernel(const Pass pass, const PassArrays arrays, std::uint16_t* out, int q_heads) {
  wait_previous_kernel();
  GateTile tile;
  if (!find_gate_tile(pass, arrays.plans, *arrays.totals, static_cast<int>(blockIdx.x), tile)) {
    return;
  }
  constexpr int kLanes = kDim / 8;
  const int column = static_cast<int>(threadIdx.x % kLanes) * 8;
  for (int i = static_cast<int>(threadIdx.x) / kLanes; i < pass.gate_rows; i += 256 / kLanes) {
    if (!tile.valid(pass, i)) return;
    const std::int64_t first = static_cast<std::int64_t>(tile.pair(pass, i)) * pass.slots;
    const float* lse = arrays.partial_lse + first;
    float best = -INFINITY;
    for (int slot = 0; slot < pass.slots; ++slot) best = fmaxf(best, lse[slot]);
    float sum = 0.0f;
    float acc[8] = {};
#pragma unroll 4
    for (int slot = 0; slot < pass.slots; ++slot) {
      const float weight = exp2f(lse[slot] - best);
      if (weight == 0.0f) continue;  // an empty slot holds whatever was there before
      const uint4 packed =
          __ldcs(reinterpret_cast<const uint4*>(arrays.partial + (first + slot) * kDim + column));
      const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&packed);
      sum += weight;
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const float2 two = __bfloat1622float2(pairs[c]);
        acc[2 * c] = fmaf(weight, two.x, acc[2 * c]);
        acc[2 * c + 1] = fmaf(weight, two.y, acc[2 * c + 1]);
      }
    }
    const float inverse = 1.0f / sum;
    uint4 packed;
    auto* pairs = reinterpret_cast<__nv_bfloat162*>(&packed);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      pairs[c] = __floats2bfloat162_rn(acc[2 * c] * inverse, acc[2 * c + 1] * inverse);
    }
    const std::int64_t vector = static_cast<std::int64_t>(tile.row(pass, i)) * q_heads +
                                pass.first_kv_head * pass.group + tile.head(pass, i);
    *reinterpret_cast<uint4*>(out + vector * kDim + column) = packed;
  }
}

}  // namespace

cudaError_t launch_combine(const Pass& pass, const PassArrays& arrays, std::uint16_t* out,
                           int q_heads, int max_gate_tiles, cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>(max_gate_tiles * pass.kv_heads));
  return launch_overlapped(pass.head_dim == 128 ? combine_kernel<128> : combine_kernel<64>, blocks,
                           dim3(256), 0, stream, pass, arrays, out, q_heads);
}

}  // namespace mobius::hopper
