#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/hopper/gate_tile.cuh"
#include "kernels/cuda/hopper/launch.h"
#include "kernels/cuda/hopper/ptx.cuh"

namespace mobius::hopper {
namespace {

constexpr int kWidenThreads = 256;

/// Whether the pass reads the slice's page: as part of a gated block that some pair chose, or
/// because rows read everything before them, or their own block.
__device__ bool is_read(const Pass& pass, const SlicePlan& plan, const std::int32_t* counts,
                        int page, int kv_head) {
  if (plan.blocks == 0) return true;
  const int first = page * pass.page_tokens;
  const int block = first / plan.block;
  if (block >= plan.gate_position / plan.block) return true;
  if (plan.output_tiles > 0 && first < plan.gate_position) return true;
  return counts[kv_head * pass.block_stride + plan.block_begin + block] > 0;
}

/// One block of threads for each page of a slice and KV head of the pass: 16 codes a thread at a
/// time.
template <int kDim>
__global__ void __launch_bounds__(kWidenThreads)
    widen_kernel(const KvPages kv, const Pass pass, const SlicePlan* plans,
                 const std::int32_t* counts, const std::int32_t* page_table, int table_stride) {
  join_chain();
  const int index = static_cast<int>(blockIdx.x);
  const int kv_head = static_cast<int>(blockIdx.y);
  const SlicePlan plan = plans[find_plan(plans, pass.num_slices, index,
                                         [](const SlicePlan& p) { return p.page_begin; })];
  const int page = index - plan.page_begin;
  // A pass of some of the rows has fewer pages than the call.
  if (page * kv.page_tokens >= plan.position_end) return;
  if (!is_read(pass, plan, counts, page, kv_head)) return;
  const std::int64_t physical =
      page_table[static_cast<std::int64_t>(plan.table_row) * table_stride + page];

  constexpr int kChunks = kDim / 16;  // of 16 codes in a vector
  const int chunks = kv.page_tokens * kChunks;
  const std::int64_t source = (physical * kv.kv_heads + pass.first_kv_head + kv_head) *
                              (kv.page_tokens / kRecordTokens) * record_bytes(kDim);
  const std::int64_t target =
      ((pass.side_by_side ? index : physical) * pass.kv_heads + kv_head) * chunks * 2;
#pragma unroll
  for (int operand = 0; operand < 2; ++operand) {
    const auto* from =
        static_cast<const std::uint8_t*>(operand == 0 ? kv.keys : kv.values) + source;
    auto* to = reinterpret_cast<uint4*>(static_cast<std::uint8_t*>(kv.widened) +
                                        operand * (kv.widened_bytes / 2)) +
               target;
#pragma unroll 4
    for (int at = static_cast<int>(threadIdx.x); at < chunks; at += kWidenThreads) {
      const int token = at / kChunks;
      const std::uint8_t* record = from + token / kRecordTokens * record_bytes(kDim);
      const int slot = token % kRecordTokens;
      const uint4 codes =
          __ldcs(reinterpret_cast<const uint4*>(record + slot * kDim + at % kChunks * 16));
      const std::uint32_t scale = scale_bf16x2(record[kRecordTokens * kDim + slot]);
      uint4 low;
      uint4 high;
      widen_four(codes.x, scale, &low.x, &low.y);
      widen_four(codes.y, scale, &low.z, &low.w);
      widen_four(codes.z, scale, &high.x, &high.y);
      widen_four(codes.w, scale, &high.z, &high.w);
      to[2 * at] = low;
      to[2 * at + 1] = high;
    }
  }
}

}  // namespace

cudaError_t launch_widen(const KvPages& kv, const Pass& pass, const PassArrays& arrays,
                         const std::int32_t* page_table, int table_stride, std::int64_t slice_pages,
                         cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(slice_pages), static_cast<unsigned>(pass.kv_heads));
  const auto launch = [&](auto kernel) {
    return launch_overlapped(kernel, grid, dim3(kWidenThreads), 0, stream, kv, pass, arrays.plans,
                             arrays.counts, page_table, table_stride);
  };
  return pass.head_dim == 128 ? launch(widen_kernel<128>) : launch(widen_kernel<64>);
}

}  // namespace mobius::hopper
