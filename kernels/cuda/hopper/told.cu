#include "kernels/cuda/hopper/plan.h"

namespace mobius::hopper {
namespace {

/// One block of threads for each slice and KV head of the pass: what the gate chose for the slice's
/// last row, if the pass has it.
__global__ void told_kernel(const Pass pass, const SlicePlan* plans, const Slice* slices,
                            const std::int32_t* chosen, const Told told, int q_heads) {
  const int s = static_cast<int>(blockIdx.x);
  const int kv_head = static_cast<int>(blockIdx.y);
  const SlicePlan plan = plans[s];
  const Slice slice = slices[s];
  const int at = told.at[s];
  const bool last = plan.position_end == slice.first_position + slice.num_rows;
  if (at < 0 || plan.blocks == 0 || !last) return;
  const int history = pass.slots - 1;
  const int count = slice.top_k - 1;
  const int own = (plan.position_end - 1) / plan.block;
  const int row = plan.first_row + plan.position_end - 1 - plan.position_begin;
  const int first_block = kv_head * pass.block_stride + plan.block_begin;
  for (int i = static_cast<int>(threadIdx.x); i < pass.group * count;
       i += static_cast<int>(blockDim.x)) {
    const int head = kv_head * pass.group + i / count;
    const std::int64_t pair =
        static_cast<std::int64_t>(row - pass.first_row) * (pass.kv_heads * pass.group) + head;
    const std::int32_t entry = chosen[pair * history + i % count];
    const std::int64_t list =
        std::int64_t{told.layer} * q_heads + pass.first_kv_head * pass.group + head;
    told.lists[at + list * count + i % count] = entry < 0 ? own : entry - first_block;
  }
}

}  // namespace

cudaError_t launch_told(const Pass& pass, const PassArrays& arrays, const Slice* slices,
                        const Told& told, int q_heads, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(pass.num_slices), static_cast<unsigned>(pass.kv_heads));
  told_kernel<<<grid, 64, 0, stream>>>(pass, arrays.plans, slices, arrays.chosen, told, q_heads);
  return cudaGetLastError();
}

}  // namespace mobius::hopper
