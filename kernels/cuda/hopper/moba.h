#pragma once

// Block-sparse (MoBA, kernels/moba.md) and full attention over a paged KV cache on Hopper GPUs
// (sm_90a), as free functions on device memory. Nothing else of Mobius is needed to use them.
//
// Numbers are bf16 unless said otherwise; products accumulate in fp32, the softmax is fp32,
// probabilities are rounded to bf16 before they meet the values. Head dimension 64 or 128; any
// number of query heads per KV head.
//
// No function allocates, synchronises or reads device memory from the host: all take a workspace
// whose size follows from limits known beforehand, enqueue kernels on `stream` and return. Calls
// that share a workspace must be ordered by their streams; beyond that all functions are
// thread-safe. They return cudaErrorInvalidValue where arguments contradict themselves or the
// limits, before anything is enqueued, else the first error that CUDA reports. What lies in device
// memory (slices, page ids) cannot be checked and is trusted.
//
// Results have the same bits from run to run, and a row's bits depend on its own sequence alone:
// not on how the prompt was cut, not on the other rows of the call, not on the workspace's size.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace mobius::hopper {

/// Tokens whose quantised keys (or values) of one KV head lie together, and the bytes of such a
/// record: e4m3 codes [16][head_dim], then a scale byte for each token, which stands for
/// 2^(byte - 127) and, where it is 255, for infinity. A key is code * scale, exact in bf16. Records
/// are as 16-byte aligned as their beginning is.
constexpr std::int32_t kRecordTokens = 16;
constexpr std::int32_t record_bytes(std::int32_t head_dim) {
  return kRecordTokens * (head_dim + 1);
}

/// The KV cache of one layer. A page holds `page_tokens` (a multiple of 64) consecutive tokens of a
/// sequence for every KV head. Device pointers, 16-byte aligned, borrowed until the stream is done.
struct KvPages {
  const void* keys = nullptr;    ///< bf16 [num_pages, kv_heads, page_tokens, head_dim], after RoPE
  const void* values = nullptr;  ///< as keys
  /// fp32 [num_pages, kv_heads, head_dim]: sums of a page's keys, taken one after the other.
  /// Needed for pages of complete blocks where MoBA is asked for.
  const float* key_sums = nullptr;
  /// bf16 [num_pages, kv_heads, head_dim]: centroids of complete blocks of `centroid_block` tokens,
  /// each at its block's last page. Null: computed from key_sums, with the same result.
  const void* centroids = nullptr;
  std::int32_t centroid_block = 0;
  std::int32_t num_pages = 0;
  std::int32_t page_tokens = 0;
  std::int32_t kv_heads = 0;
  std::int32_t head_dim = 0;
  /// Keys and values are records: bytes [num_pages, kv_heads, page_tokens / 16,
  /// record_bytes(head_dim)]. Sums and centroids are as ever, of the quantised keys.
  bool fp8 = false;
  /// Scratch memory of prefill_attention where fp8, 256-byte aligned, at least
  /// least_widened_bytes: bf16 keys and values of as many KV heads as fit, at a time.
  void* widened = nullptr;
  std::size_t widened_bytes = 0;
};

/// Room for one KV head of all pages.
constexpr std::size_t least_widened_bytes(const KvPages& kv) {
  return static_cast<std::size_t>(kv.num_pages) * static_cast<std::size_t>(kv.page_tokens) *
         static_cast<std::size_t>(kv.head_dim) * 4;
}

/// Consecutive rows of one sequence. In device memory.
struct Slice {
  std::int32_t first_row;       ///< in the packed rows of the call
  std::int32_t num_rows;        ///< may be 0
  std::int32_t first_position;  ///< position of the first row; keys up to each row's own are cached
  std::int32_t table_row;       ///< row of the page table
  std::int32_t block;           ///< tokens per block, a multiple of page_tokens; 0: full attention
  std::int32_t top_k;           ///< blocks per query, the current one included
};

/// Asks which blocks the last rows of slices choose besides their own, each list in any order. Only
/// of rows that leave some block out and have a top_k of 2 or more. Where scores were NaN and fewer
/// were chosen, the row's own block fills the list. Addresses of the device (page-locked memory of
/// the host will do).
struct Told {
  std::int32_t* lists = nullptr;     ///< null: nobody asks
  const std::int32_t* at = nullptr;  ///< [num_slices] where in `lists` the slice's begin; -1: not
  std::int32_t layer =
      0;  ///< the slice's lists are [layers][q_heads][top_k - 1]; this one is filled
};

/// Rows of a call. `slices` and `page_table` are device memory.
struct Rows {
  const void* q = nullptr;  ///< bf16 [rows, q_heads, head_dim], after RoPE
  void* out = nullptr;      ///< bf16 [rows, q_heads, head_dim]; rows of no slice are not written
  std::int32_t rows = 0;
  std::int32_t q_heads = 0;  ///< head h reads KV head h / (q_heads / kv_heads)
  const Slice* slices = nullptr;
  std::int32_t num_slices = 0;
  const std::int32_t* page_table = nullptr;  ///< [*, table_stride] page ids in sequence order
  std::int32_t table_stride = 0;
  /// Where the cache is fp8, of prefill_attention: pages that hold keys of slices with rows, added
  /// up over such slices.
  std::int64_t slice_pages = 0;
  Told told{};
  /// decode_attention alone: no kernel that may still run when the call's first one starts writes
  /// centroids or page sums of blocks before the rows' own. Lets it read them while the kernel
  /// before ends, where that one allows it (ptx.cuh, release_next_kernel).
  bool early_centroids = false;
};

/// Upper bounds on what a workspace must serve.
struct Limits {
  std::int32_t rows = 0;
  std::int32_t num_slices = 0;  ///< at most 1024
  std::int32_t q_heads = 0;
  std::int32_t kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t top_k = 0;  ///< of MoBA slices, at most 64; 0 where all slices are full attention
  /// Sum over MoBA slices of the complete blocks before the block of the slice's last row.
  std::int32_t blocks = 0;
  /// Partial results in flight are cut to about this many bytes, by working through KV heads and,
  /// if need be, rows one after the other. Less memory costs time.
  std::size_t partial_bytes = std::size_t{4} << 30;
};

/// Bytes of workspace (256-byte aligned) for prefill_attention under these limits; 0 if the limits
/// are not valid.
std::size_t prefill_workspace_bytes(const Limits& limits);

/// Attention of all slices, causal, the keys of the rows themselves cached already.
cudaError_t prefill_attention(const KvPages& kv, const Rows& rows, const Limits& limits,
                              void* workspace, cudaStream_t stream);

/// Bytes of workspace for decode_attention. Here `limits.rows` and `limits.num_slices` count
/// sequences (any number), and `limits.blocks` bounds the complete blocks of any single one.
std::size_t decode_workspace_bytes(const Limits& limits);

/// As prefill_attention for slices of one row each (a decode step), split over the keys that a row
/// attends. Grids depend on the limits alone, so that the call can be captured in a graph and
/// replayed with other slices, pages and queries. Slices of num_rows 0 are skipped. What comes next
/// in the stream may settle on the device while this still runs, if it is launched so.
///
/// Scores are summed in another order than prefill_attention's, so of two blocks whose scores
/// differ by less than fp32 summation error the two may choose differently.
cudaError_t decode_attention(const KvPages& kv, const Rows& rows, const Limits& limits,
                             void* workspace, cudaStream_t stream);

}  // namespace mobius::hopper
