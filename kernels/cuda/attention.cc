#include "kernels/cuda/attention.h"

#include <algorithm>

#include "kernels/cuda/check.h"

namespace mobius {
namespace {

constexpr std::size_t kAlignment = 256;
constexpr std::size_t kScoreBytes = std::size_t{64} << 20;
/// What a Hopper GPU of 132 multiprocessors keeps busy.
constexpr std::int32_t kMostGateWarps = 1056;
constexpr std::int32_t kLeastGateWarps = 32;
constexpr std::int32_t kSingleBlocks = 264;

/// What the fast kernels are given memory for; steps beyond it take the plain ones.
constexpr std::int32_t kPlannedTopK = 16;
constexpr std::size_t kPartialBytes = std::size_t{512} << 20;

struct Parts {
  std::size_t out = 0, state = 0, arrived = 0, selection = 0, scores = 0, hopper = 0, end = 0;
  std::size_t arrived_bytes = 0;
  std::int32_t words = 0, blocks = 0, warps = 0;
};

bool takes_fast_kernels(const KvShape& kv) {
  return (kv.head_dim == 64 || kv.head_dim == 128) && kv.page_tokens % 64 == 0;
}

hopper::KvPages pages_of(const CudaKvPool& kv, std::int32_t layer) {
  const KvShape& shape = kv.shape();
  return {.keys = kv.keys(layer),
          .values = kv.values(layer),
          .key_sums = kv.sums(layer),
          .centroids = kv.centroids(layer),
          .centroid_block = shape.centroid_block,
          .num_pages = shape.num_pages,
          .page_tokens = shape.page_tokens,
          .kv_heads = shape.kv_heads,
          .head_dim = shape.head_dim,
          .fp8 = shape.fp8,
          .widened = kv.widened(),
          .widened_bytes = kv.widened_bytes()};
}

bool fits(std::size_t bytes, const AttentionWorkspace& workspace) {
  return bytes > 0 && bytes <= workspace.hopper_bytes;
}

/// Whether kernels/cuda/hopper took the slices of several rows.
bool launch_fast_tiles(Tensor out, Tensor q, const CudaKvPool& kv, std::int32_t layer,
                       const HostStep& host, const DeviceStep& step,
                       const AttentionWorkspace& workspace, cudaStream_t stream) {
  const KvShape& shape = kv.shape();
  if (workspace.hopper_bytes == 0 || host.moba_blocks > (1 << 30)) return false;
  const auto heads = static_cast<std::int32_t>(q.cols / shape.head_dim);
  const hopper::Limits limits{.rows = host.rows,
                              .num_slices = host.slices,
                              .q_heads = heads,
                              .kv_heads = shape.kv_heads,
                              .head_dim = shape.head_dim,
                              .top_k = host.top_k,
                              .blocks = static_cast<std::int32_t>(host.moba_blocks),
                              .partial_bytes = kPartialBytes};
  if (!fits(hopper::prefill_workspace_bytes(limits), workspace)) return false;
  const hopper::Rows rows{.q = q.data,
                          .out = out.data,
                          .rows = host.rows,
                          .q_heads = heads,
                          .slices = step.hopper_slices + std::ptrdiff_t{layer} * host.slices,
                          .num_slices = host.slices,
                          .page_table = step.pages,
                          .table_stride = step.max_pages,
                          .slice_pages = host.tile_pages,
                          .told = {step.told, step.told_at, layer}};
  MOBIUS_CUDA(
      hopper::prefill_attention(pages_of(kv, layer), rows, limits, workspace.hopper, stream));
  return true;
}

/// Whether it took the slices of one row under MoBA. What it launches follows from the number of
/// slices and the greatest top_k.
bool launch_fast_singles(Tensor out, Tensor q, const CudaKvPool& kv, std::int32_t layer,
                         const HostStep& host, const DeviceStep& step,
                         const AttentionWorkspace& workspace, cudaStream_t stream) {
  const KvShape& shape = kv.shape();
  if (workspace.hopper_bytes == 0) return false;
  const auto heads = static_cast<std::int32_t>(q.cols / shape.head_dim);
  const hopper::Limits limits{.rows = host.slices,
                              .num_slices = host.slices,
                              .q_heads = heads,
                              .kv_heads = shape.kv_heads,
                              .head_dim = shape.head_dim,
                              .top_k = host.single_top_k,
                              .blocks = workspace.max_blocks};
  if (!fits(hopper::decode_workspace_bytes(limits), workspace)) return false;
  const hopper::Rows rows{.q = q.data,
                          .out = out.data,
                          .rows = host.slices,
                          .q_heads = heads,
                          .slices = step.hopper_singles + std::ptrdiff_t{layer} * host.slices,
                          .num_slices = host.slices,
                          .page_table = step.pages,
                          .table_stride = step.max_pages,
                          .told = {step.told, step.told_at, layer},
                          // A longer slice may complete a block that a slice of one row shares.
                          .early_centroids = host.tiles == 0};
  MOBIUS_CUDA(
      hopper::decode_attention(pages_of(kv, layer), rows, limits, workspace.hopper, stream));
  return true;
}

Parts lay_out(const KvShape& kv, std::int32_t heads, const StepLimits& limits,
              AttentionKernels kernels) {
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
  parts.arrived_bytes = singles * static_cast<std::size_t>(kv.kv_heads) * sizeof(unsigned);
  parts.arrived = place(parts.arrived_bytes);
  parts.selection =
      place(static_cast<std::size_t>(limits.max_rows) * static_cast<std::size_t>(heads) *
            static_cast<std::size_t>(parts.words) * sizeof(std::uint32_t));
  parts.scores = place(static_cast<std::size_t>(parts.warps) * warp_bytes);
  parts.hopper = parts.end;
  const hopper::Limits prefill{
      .rows = limits.max_rows,
      .num_slices = std::min(limits.max_sequences, 1024),
      .q_heads = heads,
      .kv_heads = kv.kv_heads,
      .head_dim = kv.head_dim,
      .top_k = kPlannedTopK,
      .blocks = std::max(1, std::min(kv.num_pages, limits.max_sequences * parts.blocks)),
      .partial_bytes = kPartialBytes};
  hopper::Limits decode = prefill;
  decode.rows = decode.num_slices = limits.max_sequences;
  decode.blocks = parts.blocks;
  const bool wanted = kernels == AttentionKernels::hopper && takes_fast_kernels(kv);
  place(wanted ? std::max(hopper::prefill_workspace_bytes(prefill),
                          hopper::decode_workspace_bytes(decode))
               : 0);
  return parts;
}

}  // namespace

std::size_t attention_workspace_bytes(const KvShape& kv, std::int32_t heads,
                                      const StepLimits& limits, AttentionKernels kernels) {
  return lay_out(kv, heads, limits, kernels).end;
}

AttentionWorkspace lay_out_attention_workspace(void* memory, const KvShape& kv, std::int32_t heads,
                                               const StepLimits& limits, AttentionKernels kernels) {
  const Parts parts = lay_out(kv, heads, limits, kernels);
  auto* bytes = static_cast<std::byte*>(memory);
  MOBIUS_CUDA(cudaMemset(bytes + parts.arrived, 0, parts.arrived_bytes));
  MOBIUS_CUDA(cudaDeviceSynchronize());  // the memset's stream is not the backend's
  return {.partial_out = reinterpret_cast<float*>(bytes + parts.out),
          .partial_state = reinterpret_cast<float*>(bytes + parts.state),
          .arrived = reinterpret_cast<unsigned*>(bytes + parts.arrived),
          .selection = reinterpret_cast<std::uint32_t*>(bytes + parts.selection),
          .selection_words = parts.words,
          .scores = reinterpret_cast<float*>(bytes + parts.scores),
          .gate_warps = parts.warps,
          .max_blocks = parts.blocks,
          .hopper = bytes + parts.hopper,
          .hopper_bytes = parts.end - parts.hopper};
}

void launch_attention(Tensor out, Tensor q, const CudaKvPool& kv, std::int32_t layer,
                      const HostStep& host, const DeviceStep& step,
                      const AttentionWorkspace& workspace, bool fixed_grid, cudaStream_t stream) {
  const KvShape& shape = kv.shape();
  const bool fast_tiles =
      host.tiles > 0 && launch_fast_tiles(out, q, kv, layer, host, step, workspace, stream);
  const bool fast_singles = host.single_top_k > 0 &&
                            launch_fast_singles(out, q, kv, layer, host, step, workspace, stream);
  const bool full_singles = host.single > 0 && layer >= shape.num_layers - host.single_full_layers;
  const auto heads = static_cast<std::int32_t>(q.cols / shape.head_dim);
  const bool decode = full_singles && takes_decode(shape, heads);
  const AttentionCall call{
      .q = static_cast<const std::uint16_t*>(q.data),
      .out = static_cast<std::uint16_t*>(out.data),
      .keys = kv.keys(layer),
      .values = kv.values(layer),
      .sums = kv.sums(layer),
      .centroids = kv.centroids(layer),
      .step = step,
      .workspace = workspace,
      .heads = heads,
      .kv_heads = shape.kv_heads,
      .gqa = heads / shape.kv_heads,
      .page_tokens = shape.page_tokens,
      .centroid_block = shape.centroid_block,
      .layer = layer,
      .num_layers = shape.num_layers,
      .fp8 = shape.fp8,
      .tiles = fast_tiles ? 0 : host.tiles,
      .single = host.single,
      .decode_blocks = host.decode_blocks,
      .skip_sparse_singles = fast_singles,
      .skip_full_singles = decode,
      .early_copies = host.tiles == 0,
  };
  const bool sparse_tiles = host.top_k > 0 && call.tiles > 0;
  const bool sparse_singles = host.single_top_k > 0 && !fast_singles;
  if (sparse_tiles || sparse_singles) {
    launch_gate(call, shape.head_dim, stream);
    if (step.told != nullptr) launch_told(call, host.slices, stream);
  }
  if (call.tiles > 0) launch_tiles(call, shape.head_dim, stream);
  if (decode) launch_decode(call, shape.head_dim, stream);
  if (sparse_singles || (full_singles && !decode)) {
    const std::int64_t items = std::int64_t{host.single_spans} * shape.kv_heads;
    const auto blocks =
        fixed_grid ? kSingleBlocks
                   : static_cast<std::int32_t>(std::min<std::int64_t>(items, kSingleBlocks));
    launch_singles(call, shape.head_dim, blocks, stream);
    launch_merge(call, shape.head_dim, stream);
  }
}

}  // namespace mobius
