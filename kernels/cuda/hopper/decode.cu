#include <algorithm>
#include <cmath>

#include "kernels/cuda/hopper/decode_attend.cuh"
#include "kernels/cuda/hopper/decode_gate.cuh"
#include "kernels/cuda/hopper/launch.h"
#include "kernels/cuda/hopper/workspace.h"

namespace mobius::hopper {
namespace {

constexpr int kMaxRows = 65535;  // of a grid's last dimension
// Resident on the whole device at once.
constexpr int kResidentBlocks = 132 * 2;  // of decode_attend_kernel
constexpr int kGateBlocks = 132 * 2;      // of decode_gate_kernel
constexpr int kMinSplits = 4;  // so that one long row among many short ones is spread too

bool valid(const Limits& l) {
  return l.rows > 0 && l.rows <= kMaxRows && l.num_slices > 0 && l.num_slices <= kMaxRows &&
         l.kv_heads > 0 && l.q_heads > 0 && l.q_heads % l.kv_heads == 0 &&
         (l.head_dim == 64 || l.head_dim == 128) && l.top_k >= 0 && l.top_k <= kDecodeMaxTopK &&
         l.blocks >= 0;
}

void place_arrays(const Limits& l, DecodeParams& p, Layout& layout) {
  const std::int64_t pairs = static_cast<std::int64_t>(l.num_slices) * l.q_heads;
  p.top_k = std::max(l.top_k, 1);
  p.max_chunks = (l.blocks + kChunkBlocks - 1) / kChunkBlocks;
  p.splits =
      static_cast<int>(std::clamp<std::int64_t>(kResidentBlocks / pairs, kMinSplits, kMaxParts));
  // With few rows, latency counts: spread even short ones. With many, setting up costs more.
  p.share_keys = pairs * kMinSplits <= kResidentBlocks ? 128 : 1024;
  p.arrived = layout.take<std::uint32_t>(pairs);
  p.partial = layout.take<float>(pairs * kMaxParts * (l.head_dim + 2));
  p.candidates = layout.take<Candidate>(pairs * p.max_chunks * (p.top_k - 1));
}

}  // namespace

std::size_t decode_workspace_bytes(const Limits& limits) {
  if (!valid(limits)) return 0;
  Layout layout(nullptr);
  DecodeParams p{};
  place_arrays(limits, p, layout);
  return layout.bytes();
}

cudaError_t decode_attention(const KvPages& kv, const Rows& rows, const Limits& limits,
                             void* workspace, cudaStream_t stream) {
  const bool sane =
      valid(limits) && kv.keys != nullptr && kv.values != nullptr && kv.page_tokens > 0 &&
      kv.page_tokens % 64 == 0 && kv.kv_heads == limits.kv_heads &&
      kv.head_dim == limits.head_dim && rows.q_heads == limits.q_heads && rows.rows >= 0 &&
      rows.rows <= limits.rows && rows.num_slices >= 0 && rows.num_slices <= limits.num_slices &&
      (rows.num_slices == 0 || (rows.q != nullptr && rows.out != nullptr &&
                                rows.slices != nullptr && rows.page_table != nullptr)) &&
      workspace != nullptr && reinterpret_cast<std::uintptr_t>(workspace) % 256 == 0 &&
      (limits.top_k <= 1 || limits.blocks == 0 || kv.key_sums != nullptr ||
       kv.centroids != nullptr);
  if (!sane) return cudaErrorInvalidValue;
  if (rows.num_slices == 0) return cudaSuccess;
  Layout layout(workspace);
  DecodeParams p{};
  place_arrays(limits, p, layout);
  p.kv = kv;
  p.rows = rows;
  p.scale_log2 = static_cast<float>(1.4426950408889634 / std::sqrt(double(kv.head_dim)));
  const auto slices = static_cast<unsigned>(rows.num_slices);
  const int gates = kv.kv_heads * rows.num_slices;
  const dim3 gate_grid(
      static_cast<unsigned>(std::clamp(kGateBlocks / gates, 1, std::max(p.max_chunks, 1))),
      static_cast<unsigned>(kv.kv_heads), slices);
  const dim3 attend_grid(static_cast<unsigned>(p.splits), static_cast<unsigned>(rows.q_heads),
                         slices);
  const dim3 threads(kDecodeThreads);
  const auto gate = kv.head_dim == 128 ? decode_gate_kernel<128> : decode_gate_kernel<64>;
  const cudaError_t gate_launched = launch_overlapped(gate, gate_grid, threads, 0, stream, p);
  if (gate_launched != cudaSuccess) return gate_launched;
  const auto attend = [&](auto kernel) {
    return launch_overlapped(kernel, attend_grid, threads, 0, stream, p);
  };
  if (kv.head_dim == 128) {
    return attend(kv.fp8 ? decode_attend_kernel<128, true> : decode_attend_kernel<128, false>);
  }
  return attend(kv.fp8 ? decode_attend_kernel<64, true> : decode_attend_kernel<64, false>);
}

}  // namespace mobius::hopper
