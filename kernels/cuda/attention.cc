#include "kernels/cuda/attention.h"

#include <algorithm>

namespace mobius {
namespace {

constexpr std::size_t kAlignment = 256;
constexpr std::size_t kScoreBytes = std::size_t{64} << 20;
/// What a Hopper GPU of 132 multiprocessors keeps busy.
constexpr std::int32_t kMostGateWarps = 1056;
constexpr std::int32_t kLeastGateWarps = 32;
constexpr std::int32_t kSingleBlocks = 264;

struct Parts {
  std::size_t out = 0, state = 0, selection = 0, scores = 0, end = 0;
  std::int32_t words = 0, blocks = 0, warps = 0;
};

Parts lay_out(const KvShape& kv, std::int32_t heads, const StepLimits& limits) {
  Parts parts;
  const auto place = [&parts](std::size_t bytes) {
    const std::size_t at = parts.end;
    parts.end += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return at;
  };
  // The smallest block is a page.
  parts.blocks = limits.max_context / kv.page_tokens + 1;
  parts.words = (parts.blocks + 31) / 32;
  const std::size_t warp_bytes = static_cast<std::size_t>(parts.blocks) * kWarpRows * sizeof(float);
  parts.warps = static_cast<std::int32_t>(
      std::clamp<std::size_t>(kScoreBytes / warp_bytes, kLeastGateWarps, kMostGateWarps));
  const std::size_t singles =
      static_cast<std::size_t>(std::min(limits.max_sequences, limits.max_rows));
  const std::size_t spans = singles * static_cast<std::size_t>(heads) * kMaxSpans;
  parts.out = place(spans * static_cast<std::size_t>(kv.head_dim) * sizeof(float));
  parts.state = place(spans * 2 * sizeof(float));
  parts.selection =
      place(static_cast<std::size_t>(limits.max_rows) * static_cast<std::size_t>(heads) *
            static_cast<std::size_t>(parts.words) * sizeof(std::uint32_t));
  parts.scores = place(static_cast<std::size_t>(parts.warps) * warp_bytes);
  return parts;
}

}  // namespace

std::size_t attention_workspace_bytes(const KvShape& kv, std::int32_t heads,
                                      const StepLimits& limits) {
  return lay_out(kv, heads, limits).end;
}

AttentionWorkspace lay_out_attention_workspace(void* memory, const KvShape& kv, std::int32_t heads,
                                               const StepLimits& limits) {
  const Parts parts = lay_out(kv, heads, limits);
  auto* bytes = static_cast<std::byte*>(memory);
  return {.partial_out = reinterpret_cast<float*>(bytes + parts.out),
          .partial_state = reinterpret_cast<float*>(bytes + parts.state),
          .selection = reinterpret_cast<std::uint32_t*>(bytes + parts.selection),
          .selection_words = parts.words,
          .scores = reinterpret_cast<float*>(bytes + parts.scores),
          .gate_warps = parts.warps,
          .max_blocks = parts.blocks};
}

void launch_attention(Tensor out, Tensor q, const CudaKvPool& kv, std::int32_t layer,
                      const HostStep& host, const DeviceStep& step,
                      const AttentionWorkspace& workspace, bool fixed_grid, cudaStream_t stream) {
  const KvShape& shape = kv.shape();
  const AttentionCall call{
      .q = static_cast<const std::uint16_t*>(q.data),
      .out = static_cast<std::uint16_t*>(out.data),
      .keys = kv.keys(layer),
      .values = kv.values(layer),
      .sums = kv.sums(layer),
      .centroids = kv.centroids(layer),
      .step = step,
      .workspace = workspace,
      .heads = static_cast<std::int32_t>(q.cols / shape.head_dim),
      .kv_heads = shape.kv_heads,
      .page_tokens = shape.page_tokens,
      .centroid_block = shape.centroid_block,
      .layer = layer,
      .num_layers = shape.num_layers,
      .tiles = host.tiles,
      .single = host.single,
  };
  if (host.moba) launch_gate(call, shape.head_dim, stream);
  if (host.tiles > 0) launch_tiles(call, shape.head_dim, stream);
  if (host.single > 0) {
    const std::int64_t items = std::int64_t{host.single_spans} * shape.kv_heads;
    const auto blocks =
        fixed_grid ? kSingleBlocks
                   : static_cast<std::int32_t>(std::min<std::int64_t>(items, kSingleBlocks));
    launch_singles(call, shape.head_dim, blocks, stream);
  }
}

}  // namespace mobius
