#include <cuda_bf16.h>

#include "kernels/cuda/hopper/gate_tile.cuh"
#include "kernels/cuda/hopper/launch.h"
#include "kernels/cuda/hopper/ptx.cuh"

namespace mobius::hopper {
namespace {

/// One block of threads per centroid of all KV heads: 8 columns a thread. Clears the block's
/// counts.
__global__ void centroids_kernel(const KvPages kv, const Pass pass, const SlicePlan* plans,
                                 const PassTotals* totals, const std::int32_t* page_table,
                                 int table_stride, std::uint16_t* out, std::int32_t* counts) {
  join_chain();
  const int index = static_cast<int>(blockIdx.x);
  for (int head = static_cast<int>(threadIdx.x); head < pass.kv_heads;
       head += static_cast<int>(blockDim.x)) {
    counts[head * pass.block_stride + index] = 0;
  }
  if (index >= totals->blocks) return;
  const SlicePlan plan = plans[find_plan(plans, pass.num_slices, index,
                                         [](const SlicePlan& p) { return p.block_begin; })];
  const std::int32_t* pages = page_table + static_cast<std::int64_t>(plan.table_row) * table_stride;
  const int block = index - plan.block_begin;
  const int block_pages = plan.block / kv.page_tokens;
  const int first_page = block * block_pages;
  const int width = kv.kv_heads * kv.head_dim;
  for (int column = static_cast<int>(threadIdx.x) * 8; column < width;
       column += static_cast<int>(blockDim.x) * 8) {
    uint4 packed;
    if (kv.centroids != nullptr && kv.centroid_block == plan.block) {
      const std::int64_t page = pages[first_page + block_pages - 1];
      packed = *reinterpret_cast<const uint4*>(static_cast<const std::uint16_t*>(kv.centroids) +
                                               page * width + column);
    } else {
      float sum[8] = {};
      for (int p = 0; p < block_pages; ++p) {
        const float* source =
            kv.key_sums + static_cast<std::int64_t>(pages[first_page + p]) * width + column;
        for (int i = 0; i < 8; ++i) sum[i] += source[i];
      }
      auto* halves = reinterpret_cast<__nv_bfloat16*>(&packed);
      for (int i = 0; i < 8; ++i) {
        halves[i] = __float2bfloat16_rn(__fdiv_rn(sum[i], static_cast<float>(plan.block)));
      }
    }
    const int kv_head = column / kv.head_dim;
    *reinterpret_cast<uint4*>(
        out + (static_cast<std::int64_t>(kv_head) * pass.block_stride + index) * kv.head_dim +
        column % kv.head_dim) = packed;
  }
}

}  // namespace

cudaError_t launch_centroids(const KvPages& kv, const Pass& pass, const PassArrays& arrays,
                             const std::int32_t* page_table, int table_stride,
                             cudaStream_t stream) {
  return launch_overlapped(centroids_kernel, dim3(static_cast<unsigned>(pass.block_stride)),
                           dim3(128), 0, stream, kv, pass, arrays.plans, arrays.totals, page_table,
                           table_stride, arrays.centroids, arrays.counts);
}

}  // namespace mobius::hopper
