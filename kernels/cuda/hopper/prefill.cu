#include <algorithm>
#include <cmath>

#include "kernels/cuda/hopper/attend.cuh"
#include "kernels/cuda/hopper/attend.h"
#include "kernels/cuda/hopper/gate.h"
#include "kernels/cuda/hopper/plan.h"
#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/hopper/workspace.h"

namespace mobius::hopper {

namespace {

constexpr int kMaxSlices = 1024;
constexpr int kMaxTopK = 64;

bool valid(const Limits& l) {
  return l.rows > 0 && l.num_slices > 0 && l.num_slices <= kMaxSlices && l.kv_heads > 0 &&
         l.q_heads > 0 && l.q_heads % l.kv_heads == 0 && (l.head_dim == 64 || l.head_dim == 128) &&
         l.top_k >= 0 && l.top_k <= kMaxTopK && l.blocks >= 0;
}

/// How a call is cut into passes, and the sizes of a pass's arrays. Follows from limits alone, and
/// larger limits never need less memory, so that what holds the largest call holds any.
struct Cut {
  int group, slots, gate_rows, block_stride;
  int pass_kv_heads, pass_rows;
  int max_items, max_listed, max_gate_tiles;
  std::int64_t results;  ///< partial results of a pass
};

Cut cut_of(const Limits& l) {
  Cut cut{};
  cut.group = l.q_heads / l.kv_heads;
  cut.block_stride = l.blocks;
  cut.pass_kv_heads = l.kv_heads;
  cut.pass_rows = l.rows;
  cut.max_items = l.q_heads * ((l.rows + kHalfKeys - 1) / kHalfKeys + 2 * l.num_slices);
  // With top_k 1 nothing is chosen, and without candidate blocks nothing can be.
  if (l.top_k <= 1 || l.blocks == 0) return cut;
  cut.slots = l.top_k;
  cut.gate_rows = 64 * gate_groups(l.top_k);

  // Results are numbered by 31 bits.
  constexpr std::int64_t kMostResults = 0x7FFFFFFF;
  const std::int64_t result_bytes = l.head_dim * 2 + 16;  // with log-sum-exp, list, chosen, place
  const std::int64_t row_results = static_cast<std::int64_t>(cut.group) * cut.slots;  // a KV head's
  cut.results = std::min({static_cast<std::int64_t>(l.partial_bytes) / result_bytes, kMostResults,
                          row_results * l.kv_heads * l.rows});
  cut.results = std::max(cut.results, row_results * kTileRows);

  // Few passes of equal size: first fewer KV heads, then fewer rows.
  const std::int64_t rows_heads = cut.results / row_results;
  cut.pass_kv_heads =
      static_cast<int>(std::clamp<std::int64_t>(rows_heads / l.rows, 1, l.kv_heads));
  const int head_passes = (l.kv_heads + cut.pass_kv_heads - 1) / cut.pass_kv_heads;
  cut.pass_kv_heads = (l.kv_heads + head_passes - 1) / head_passes;
  if (const std::int64_t most_rows = rows_heads / cut.pass_kv_heads; most_rows < l.rows) {
    const auto whole_tiles = static_cast<int>(most_rows / kTileRows * kTileRows);
    const int row_passes = (l.rows + whole_tiles - 1) / whole_tiles;
    const int share = (l.rows + row_passes - 1) / row_passes;
    cut.pass_rows = (share + kTileRows - 1) / kTileRows * kTileRows;
  }
  cut.max_listed = static_cast<int>(cut.results / kTileRows) + l.kv_heads * cut.block_stride + 1;
  const std::int64_t gate_pairs = static_cast<std::int64_t>(cut.pass_rows) * cut.group;
  cut.max_gate_tiles =
      static_cast<int>((gate_pairs + cut.gate_rows - 1) / cut.gate_rows) + l.num_slices;
  return cut;
}

PassArrays place_arrays(const Limits& l, const Cut& cut, Layout& layout) {
  PassArrays a{};
  const std::int64_t entries = static_cast<std::int64_t>(l.kv_heads) * cut.block_stride;
  a.plans = layout.take<SlicePlan>(l.num_slices);
  a.totals = layout.take<PassTotals>(1);
  a.contiguous = layout.take<WorkItem>(cut.max_items);
  if (cut.slots == 0) return a;
  a.listed = layout.take<WorkItem>(cut.max_listed);
  a.counts = layout.take<std::int32_t>(entries);
  a.list_begin = layout.take<std::int32_t>(entries);
  a.item_begin = layout.take<std::int32_t>(entries);
  a.list = layout.take<std::uint32_t>(cut.results);
  a.chosen = layout.take<std::int32_t>(cut.results);
  a.place = layout.take<std::int32_t>(cut.results);
  a.partial_lse = layout.take<float>(cut.results);
  a.partial = layout.take<std::uint16_t>(cut.results * l.head_dim);
  a.centroids = layout.take<std::uint16_t>(entries * l.head_dim);
  return a;
}

bool valid(const KvPages& kv, const Rows& rows, const Limits& l, const void* workspace) {
  return valid(l) && kv.keys != nullptr && kv.values != nullptr && kv.num_pages > 0 &&
         kv.page_tokens > 0 && kv.page_tokens % kHalfKeys == 0 && kv.kv_heads == l.kv_heads &&
         kv.head_dim == l.head_dim && rows.q_heads == l.q_heads && rows.rows <= l.rows &&
         rows.num_slices <= l.num_slices && rows.rows >= 0 && rows.num_slices >= 0 &&
         (rows.rows == 0 || (rows.q != nullptr && rows.out != nullptr && rows.slices != nullptr &&
                             rows.page_table != nullptr)) &&
         workspace != nullptr && reinterpret_cast<std::uintptr_t>(workspace) % 256 == 0 &&
         (l.top_k <= 1 || l.blocks == 0 || kv.key_sums != nullptr || kv.centroids != nullptr) &&
         (!kv.fp8 ||
          (kv.widened != nullptr && reinterpret_cast<std::uintptr_t>(kv.widened) % 256 == 0 &&
           kv.widened_bytes % 512 == 0 && kv.widened_bytes >= least_widened_bytes(kv) &&
           (rows.rows == 0 || rows.slice_pages > 0)));
}

/// How many KV heads of a call fit as bf16 at a time, where the cache is fp8, and how they lie.
struct Widening {
  bool side_by_side = false;
  std::int64_t pages = 0;
  int kv_heads = 0;
};

/// kv_heads is 0 where not even one fits.
Widening widening_of(const KvPages& kv, const Rows& rows) {
  Widening widening;
  // Slices that share pages may count more of them than there are.
  widening.side_by_side = rows.slice_pages < kv.num_pages;
  widening.pages =
      std::max<std::int64_t>(1, std::min<std::int64_t>(rows.slice_pages, kv.num_pages));
  const std::int64_t head_bytes =
      widening.pages * kv.page_tokens * kv.head_dim * 2 * static_cast<std::int64_t>(sizeof(short));
  widening.kv_heads = static_cast<int>(std::min<std::int64_t>(
      static_cast<std::int64_t>(kv.widened_bytes) / head_bytes, kv.kv_heads));
  return widening;
}

#define MOBIUS_RETURN_IF_ERROR(call) \
  if (const cudaError_t error = (call); error != cudaSuccess) return error

cudaError_t run_pass(const KvPages& kv, const Rows& rows, const Cut& cut, const Pass& pass,
                     const PassArrays& arrays, const CUtensorMap& keys, const CUtensorMap& values,
                     const CUtensorMap& centroids, int blocks, cudaStream_t stream) {
  const auto* q = static_cast<const std::uint16_t*>(rows.q);
  auto* out = static_cast<std::uint16_t*>(rows.out);
  const int max_items = pass.kv_heads * pass.group *
                        ((pass.end_row - pass.first_row) / kHalfKeys + 1 + 2 * pass.num_slices);
  MOBIUS_RETURN_IF_ERROR(launch_plan(pass, rows.slices, arrays, max_items, stream));
  if (cut.slots > 0) {
    MOBIUS_RETURN_IF_ERROR(
        launch_centroids(kv, pass, arrays, rows.page_table, rows.table_stride, stream));
    const GateParams gate{q, rows.q_heads, pass, arrays};
    MOBIUS_RETURN_IF_ERROR(
        pass.head_dim == 128
            ? launch_gate_d128(gate, centroids, cut.slots, cut.max_gate_tiles, stream)
            : launch_gate_d64(gate, centroids, cut.slots, cut.max_gate_tiles, stream));
    MOBIUS_RETURN_IF_ERROR(launch_index(pass, arrays, cut.max_gate_tiles, stream));
    if (rows.told.lists != nullptr) {
      MOBIUS_RETURN_IF_ERROR(
          launch_told(pass, arrays, rows.slices, rows.told, rows.q_heads, stream));
    }
  }
  if (kv.fp8) {
    MOBIUS_RETURN_IF_ERROR(launch_widen(kv, pass, arrays, rows.page_table, rows.table_stride,
                                        rows.slice_pages, stream));
  }
  AttendParams p{};
  p.q = q;
  p.out = out;
  p.partial = arrays.partial;
  p.partial_lse = arrays.partial_lse;
  p.list = arrays.list;
  p.contiguous = arrays.contiguous;
  p.listed = arrays.listed;
  p.totals = arrays.totals;
  p.page_table = pass.side_by_side ? nullptr : rows.page_table;
  p.table_stride = rows.table_stride;
  p.q_heads = rows.q_heads;
  p.kv_heads = kv.fp8 ? pass.kv_heads : kv.kv_heads;
  p.group = pass.group;
  p.first_kv_head = kv.fp8 ? pass.first_kv_head : 0;
  p.page_tokens = kv.page_tokens;
  p.box_rows = kv.page_tokens % kTileKeys == 0 ? kTileKeys : kHalfKeys;
  p.first_row = pass.first_row;
  p.first_head = pass.first_kv_head * pass.group;
  p.pass_heads = pass.kv_heads * pass.group;
  p.slots = std::max(cut.slots, 1);
  p.scale_log2 = static_cast<float>(1.4426950408889634 / std::sqrt(double(pass.head_dim)));
  MOBIUS_RETURN_IF_ERROR(pass.head_dim == 128 ? launch_attend_d128(p, keys, values, blocks, stream)
                                              : launch_attend_d64(p, keys, values, blocks, stream));
  if (cut.slots > 0) {
    MOBIUS_RETURN_IF_ERROR(
        launch_combine(pass, arrays, out, rows.q_heads, cut.max_gate_tiles, stream));
  }
  return cudaSuccess;
}

}  // namespace

std::size_t prefill_workspace_bytes(const Limits& limits) {
  if (!valid(limits)) return 0;
  Layout layout(nullptr);
  place_arrays(limits, cut_of(limits), layout);
  return layout.bytes();
}

cudaError_t prefill_attention(const KvPages& kv, const Rows& rows, const Limits& limits,
                              void* workspace, cudaStream_t stream) {
  if (!valid(kv, rows, limits, workspace)) return cudaErrorInvalidValue;
  if (rows.rows == 0 || rows.num_slices == 0) return cudaSuccess;
  int device = 0;
  int multiprocessors = 0;
  MOBIUS_RETURN_IF_ERROR(cudaGetDevice(&device));
  MOBIUS_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));

  const Cut cut = cut_of(limits);
  Layout layout(workspace);
  const PassArrays arrays = place_arrays(limits, cut, layout);
  const Widening widening = kv.fp8 ? widening_of(kv, rows) : Widening{};
  int pass_kv_heads = cut.pass_kv_heads;
  std::int64_t kv_rows = static_cast<std::int64_t>(kv.num_pages) * kv.kv_heads * kv.page_tokens;
  const void* kv_keys = kv.keys;
  const void* kv_values = kv.values;
  if (kv.fp8) {
    // Passes of equal size.
    const int most = std::min(pass_kv_heads, widening.kv_heads);
    const int passes = (kv.kv_heads + most - 1) / most;
    pass_kv_heads = (kv.kv_heads + passes - 1) / passes;
    kv_rows = widening.pages * pass_kv_heads * kv.page_tokens;
    kv_keys = kv.widened;
    kv_values = static_cast<const std::byte*>(kv.widened) + kv.widened_bytes / 2;
  }
  const int box = kv.page_tokens % kTileKeys == 0 ? kTileKeys : kHalfKeys;
  CUtensorMap keys{};
  CUtensorMap values{};
  CUtensorMap centroids{};
  MOBIUS_RETURN_IF_ERROR(encode_tensor_map(keys, kv_keys, kv_rows, kv.head_dim, box));
  MOBIUS_RETURN_IF_ERROR(encode_tensor_map(values, kv_values, kv_rows, kv.head_dim, box));
  if (cut.slots > 0) {
    MOBIUS_RETURN_IF_ERROR(encode_tensor_map(
        centroids, arrays.centroids, static_cast<std::int64_t>(kv.kv_heads) * cut.block_stride,
        kv.head_dim, 128));
  }
  Pass pass;
  pass.group = cut.group;
  pass.head_dim = kv.head_dim;
  pass.slots = cut.slots;
  pass.gate_rows = cut.gate_rows;
  pass.block_stride = cut.block_stride;
  pass.num_slices = rows.num_slices;
  pass.page_tokens = kv.fp8 ? kv.page_tokens : 0;
  pass.side_by_side = widening.side_by_side;
  for (int head = 0; head < kv.kv_heads; head += pass_kv_heads) {
    pass.first_kv_head = head;
    pass.kv_heads = std::min(pass_kv_heads, kv.kv_heads - head);
    for (int row = 0; row < rows.rows; row += cut.pass_rows) {
      pass.first_row = row;
      pass.end_row = std::min(row + cut.pass_rows, rows.rows);
      MOBIUS_RETURN_IF_ERROR(
          run_pass(kv, rows, cut, pass, arrays, keys, values, centroids, multiprocessors, stream));
    }
  }
  return cudaSuccess;
}

}  // namespace mobius::hopper
