#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "kernels/tensor.h"

namespace mobius {

/// Index of a physical page in a KvPool. One id names the page of every layer and KV head at once.
using PageId = std::int32_t;

enum class AttentionMode : std::uint8_t { full, moba };

/// How one query chooses its keys. The rules are in kernels/moba.md.
struct AttentionPolicy {
  AttentionMode mode = AttentionMode::full;
  /// Tokens per block, a multiple of the page. Ignored under full attention.
  std::int32_t block = 0;
  /// Blocks a query attends, the current one included; at least 1. Ignored under full attention.
  std::int32_t top_k = 0;

  static AttentionPolicy full() { return {}; }
  static AttentionPolicy moba(std::int32_t block, std::int32_t top_k) {
    return {AttentionMode::moba, block, top_k};
  }
  friend bool operator==(const AttentionPolicy&, const AttentionPolicy&) = default;
};

/// Blocks that a query at `position` attends under MoBA: top_k, or all in sight where those are
/// fewer.
std::int32_t attended_blocks(const AttentionPolicy& policy, std::int32_t position);

/// Empty when the policy can run on pages of `page_tokens`, else one line that says what is wrong.
std::string validate(const AttentionPolicy& policy, std::int32_t page_tokens);

/// Shape of the paged KV cache. A page holds, per layer and KV head, keys and values of
/// `page_tokens` consecutive tokens and the fp32 sum of those keys. How a page lies in memory is
/// the backend's own business.
struct KvShape {
  std::int32_t num_layers = 0;
  std::int32_t num_pages = 0;
  std::int32_t page_tokens = 0;
  std::int32_t kv_heads = 0;
  std::int32_t head_dim = 0;
  /// Of keys, values and centroids, and of queries and attention's output.
  DType dtype = DType::bf16;
  /// Blocks of this size get their centroid stored when they complete; other block sizes are
  /// computed from page sums when they are asked for, with the same result. 0: store none.
  std::int32_t centroid_block = 0;
  /// Keys and values are stored as e4m3 codes with a scale for each token and KV head
  /// (moba.md, "Quantised keys and values"), and are code * scale, exactly, to whoever reads them.
  bool fp8 = false;
};

/// Rows of one sequence inside a step: `num_rows` consecutive tokens, the first of them at
/// `first_position` of its sequence. Rows are in the packed order of the step.
struct SequenceSlice {
  std::int32_t first_row = 0;
  std::int32_t num_rows = 0;
  /// Tokens of this sequence that are in the cache already, i.e. the position of the first row.
  std::int32_t first_position = 0;
  /// Physical pages in sequence order; covers first_position + num_rows tokens. Borrowed until the
  /// step ends.
  std::span<const PageId> pages;
  /// Policy of the layers that may be sparse.
  AttentionPolicy policy;
  /// The last layers of the model that use full attention whatever `policy` says (moba.md, rule 8).
  std::int32_t full_attention_last_layers = 0;
  /// Where to write which blocks the slice's last row attends: [layers][query heads][n], n being
  /// attended_blocks of the row, each list ascending, so that the row's own block is its last.
  /// Lists of layers under full attention are left alone. Empty: nobody asks, which costs nothing;
  /// only backends whose info().tells_blocks may be asked. Host memory, borrowed until the step
  /// ends.
  std::span<std::int32_t> attended = {};

  AttentionPolicy policy_at(std::int32_t layer, std::int32_t num_layers) const {
    return layer >= num_layers - full_attention_last_layers ? AttentionPolicy::full() : policy;
  }
};

/// Checks what every backend asks of a cache's pages: their size, the stored centroids' block, the
/// counts. Types and head dimensions are the backend's own. Throws std::runtime_error, one line.
void check_pages(const KvShape& shape);

/// Checks that slices fit a cache: they cover `rows` rows in order and without gaps, each has the
/// pages it needs, page ids exist, policies are valid. Throws std::invalid_argument.
void check_slices(std::span<const SequenceSlice> slices, const KvShape& shape, std::int64_t rows);

/// How much of the cache queries read. Follows from positions alone (every query attends
/// min(top_k, blocks up to its own) blocks), so no backend has to count.
struct BlockReads {
  std::int64_t read = 0;   ///< sum over queries of the blocks attended
  std::int64_t total = 0;  ///< sum over queries of the blocks that full attention would read

  BlockReads& operator+=(const BlockReads& other) {
    read += other.read;
    total += other.total;
    return *this;
  }
};

/// Reads of one head in one layer for queries at positions [first, first + count). `block` is the
/// unit in which to count when the policy is full attention (then read == total).
BlockReads count_block_reads(const AttentionPolicy& policy, std::int64_t first, std::int64_t count,
                             std::int32_t block);

}  // namespace mobius
