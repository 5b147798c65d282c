#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "kernels/attention.h"
#include "kernels/tensor.h"

namespace mobius {

/// Keys and values of one sequence in one layer, without pages: the plainest form there is. Both
/// are row-major [tokens, kv_heads, head_dim], borrowed, after RoPE and as the cache stores them,
/// i.e. rounded to `dtype` already (round_to in kernels/oracle/ops.h).
struct OracleSequence {
  std::int64_t tokens = 0;
  std::int32_t kv_heads = 0;
  std::int32_t head_dim = 0;
  /// Enters only into the order in which a centroid's sum is taken (moba.md, rule 2).
  std::int32_t page_tokens = 0;
  DType dtype = DType::bf16;
  std::span<const float> keys;
  std::span<const float> values;
};

/// The blocks that one query head attends at one position.
struct OracleSelection {
  std::vector<std::int32_t> blocks;  ///< ascending, the current block last
  /// Lowest score among the chosen candidates minus highest among those left out, >= 0. Infinite
  /// where no candidate was left out or none was chosen. An implementation whose scores err by less
  /// than half of it must choose the same blocks.
  double gap = std::numeric_limits<double>::infinity();
};

/// Centroids [tokens / block, kv_heads, head_dim] of the complete blocks (moba.md, rule 2): fp32
/// sums in the rule's order, then one division, rounded once to `dtype`. block % page_tokens == 0.
/// The only result of the oracle that is not float64, since the rule fixes every one of its bits.
std::vector<float> oracle_centroids(const OracleSequence& sequence, std::int32_t block);

/// Scores [position / block] of query[head_dim] against the centroids of `kv_head` (rules 3 and 4).
std::vector<double> oracle_scores(const OracleSequence& sequence, std::span<const float> centroids,
                                  std::span<const float> query, std::int32_t kv_head,
                                  std::int64_t position, std::int32_t block);

/// Rules 4, 5 and 7. scores[i] is that of candidate block i, one for each block before the
/// position's own.
OracleSelection oracle_select(std::span<const double> scores, std::int32_t top_k);

/// softmax(q K^T / sqrt(d)) V over the keys at positions <= `position` that lie in `blocks`
/// (rule 6): head_dim values. query[head_dim] is rounded already.
std::vector<double> oracle_attend(const OracleSequence& sequence, std::span<const float> query,
                                  std::int32_t kv_head, std::int64_t position, std::int32_t block,
                                  std::span<const std::int32_t> blocks);

struct OracleAttention {
  std::vector<double> out;  ///< [rows, heads, head_dim]
  /// [rows, heads]; under full attention empty.
  std::vector<OracleSelection> selections;
};

/// MoBA or full attention of queries[rows, heads, head_dim] (rounded) at positions
/// first_position + row < tokens. Query head h reads KV head h / (heads / kv_heads). Throws
/// std::invalid_argument where sizes do not fit.
OracleAttention oracle_attention(const OracleSequence& sequence, const AttentionPolicy& policy,
                                 std::span<const float> queries, std::int32_t heads,
                                 std::int64_t first_position);

}  // namespace mobius
