#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/kv_cache.h"
#include "kernels/cuda/step.h"

namespace mobius {

/// What computes slices of several rows. The fast kernels (kernels/cuda/hopper) take heads of 64
/// and 128 on pages of a multiple of 64; other shapes take the plain ones in any case.
enum class AttentionKernels : std::uint8_t { plain, hopper };

/// Scratch memory of attention, laid out for the largest step.
struct AttentionWorkspace {
  /// Results of spans, or of parts (decode_runs.h): unnormalised outputs [singles, heads,
  /// kMaxSpans, D] and, beside each, the running maximum (in units of log2) and the sum [singles,
  /// heads, kMaxSpans, 2].
  float* partial_out = nullptr;
  float* partial_state = nullptr;
  /// Runs of full attention's rows that are there, [singles, kv_heads]: 0 between kernels.
  unsigned* arrived = nullptr;
  /// Bit b of [rows, heads, selection_words]: block b, before the row's own, is chosen. Filled for
  /// rows whose policy at the layer is MoBA.
  std::uint32_t* selection = nullptr;
  std::int32_t selection_words = 0;
  /// [gate_warps, 16, max_blocks]
  float* scores = nullptr;
  std::int32_t gate_warps = 0;
  std::int32_t max_blocks = 0;
  /// For kernels/cuda/hopper; 0 bytes where the plain kernels are to run.
  void* hopper = nullptr;
  std::size_t hopper_bytes = 0;
};

/// Bytes of the workspace, and its parts laid out from `memory` (256-byte aligned), on the device;
/// sets to zero what must be so at the start, and waits for the device.
std::size_t attention_workspace_bytes(const KvShape& kv, std::int32_t heads,
                                      const StepLimits& limits, AttentionKernels kernels);
AttentionWorkspace lay_out_attention_workspace(void* memory, const KvShape& kv, std::int32_t heads,
                                               const StepLimits& limits, AttentionKernels kernels);

/// What one call of attention works on. q and out are [R, heads * D] bf16.
struct AttentionCall {
  const std::uint16_t* q = nullptr;
  std::uint16_t* out = nullptr;
  const std::uint16_t* keys = nullptr;  ///< this layer's, see CudaKvPool; as are the next three
  const std::uint16_t* values = nullptr;
  const float* sums = nullptr;
  const std::uint16_t* centroids = nullptr;  ///< null where none are stored
  DeviceStep step;
  AttentionWorkspace workspace;
  std::int32_t heads = 0;
  std::int32_t kv_heads = 0;
  std::int32_t gqa = 0;  ///< query heads of a KV head
  std::int32_t page_tokens = 0;
  std::int32_t centroid_block = 0;
  std::int32_t layer = 0;
  std::int32_t num_layers = 0;
  bool fp8 = false;                  ///< keys and values are records
  std::int32_t tiles = 0;            ///< of slices with several rows
  std::int32_t single = 0;           ///< slices of one row
  std::int32_t decode_blocks = 0;    ///< that share those under full attention
  bool skip_sparse_singles = false;  ///< another kernel takes those under MoBA
  bool skip_full_singles = false;    ///< ... and those under full attention
  /// Whether keys before the step's own rows may be read while the kernel before still runs.
  bool early_copies = false;
};

/// Backend::attention for a step that fits. `fixed_grid`: launches must not follow from the
/// context's length, because they are recorded once and replayed at other lengths. Enqueues work.
///
/// A row of a one-row slice (decode) depends on its query, its position and the cache alone. So
/// does a row of a longer slice, but in another order of sums: the two differ in last bits.
void launch_attention(Tensor out, Tensor q, const CudaKvPool& kv, std::int32_t layer,
                      const HostStep& host, const DeviceStep& step,
                      const AttentionWorkspace& workspace, bool fixed_grid, cudaStream_t stream);

// The plain kernels, for head_dim 32, 64 and 128. Which tile a row is in does not change its bits.
void launch_gate(const AttentionCall& call, std::int32_t head_dim, cudaStream_t stream);
/// Lists of what the gate chose for slices' last rows, where the step asks and a slice's gate was
/// the plain one.
void launch_told(const AttentionCall& call, std::int32_t slices, cudaStream_t stream);
void launch_tiles(const AttentionCall& call, std::int32_t head_dim, cudaStream_t stream);
/// Slices of one row leave partial results, which launch_merge merges. `blocks`: thread blocks that
/// share the spans.
void launch_singles(const AttentionCall& call, std::int32_t head_dim, std::int32_t blocks,
                    cudaStream_t stream);
void launch_merge(const AttentionCall& call, std::int32_t head_dim, cudaStream_t stream);

/// Rows under full attention, where the shape suits: attention_decode.cu.
bool takes_decode(const KvShape& kv, std::int32_t heads);
void launch_decode(const AttentionCall& call, std::int32_t head_dim, cudaStream_t stream);

}  // namespace mobius
