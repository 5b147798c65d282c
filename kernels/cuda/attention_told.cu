#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/check.h"

namespace mobius {
namespace {

/// One warp for each slice and head: its last row's bits as a list.
__global__ void told_kernel(const __grid_constant__ AttentionCall call) {
  const int slice = static_cast<int>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y);
  const int lane = static_cast<int>(threadIdx.x);
  const int at = call.step.told_at[slice];
  const int block = block_at(call, slice);
  const int rows = call.step.num_rows[slice];
  const bool elsewhere = rows == 1 ? call.skip_sparse_singles : call.tiles == 0;
  if (at < 0 || block == 0 || elsewhere) return;
  const int own = (call.step.first_position[slice] + rows - 1) / block;
  const int count = call.step.policy_top_k[slice] - 1;
  const std::uint32_t* words =
      call.workspace.selection +
      (std::int64_t{call.step.first_row[slice] + rows - 1} * call.heads + head) *
          call.workspace.selection_words;
  std::int32_t* list = call.step.told + at + (std::int64_t{call.layer} * call.heads + head) * count;
  int found = 0;
  for (int first = 0; first < own; first += 32) {
    const std::uint32_t word = words[first / 32];
    const int place = found + __popc(word & ((1U << lane) - 1));
    if ((word >> lane & 1U) != 0 && place < count) list[place] = first + lane;
    found += __popc(word);
  }
  // Fewer were chosen only where scores were NaN.
  for (int place = found + lane; place < count; place += 32) list[place] = own;
}

}  // namespace

void launch_told(const AttentionCall& call, std::int32_t slices, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(slices), static_cast<unsigned>(call.heads));
  told_kernel<<<grid, 32, 0, stream>>>(call);
  MOBIUS_CUDA_LAUNCHED();
}

}  // namespace mobius
