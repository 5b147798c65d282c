#include "kernels/oracle/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "kernels/oracle/ops.h"

namespace mobius {
namespace {

/// The head_dim values of one token and KV head in keys, values or centroids.
std::span<const float> row_of(const OracleSequence& sequence, std::span<const float> matrix,
                              std::int64_t row, std::int32_t kv_head) {
  const std::int64_t start = (row * sequence.kv_heads + kv_head) * sequence.head_dim;
  return matrix.subspan(static_cast<std::size_t>(start),
                        static_cast<std::size_t>(sequence.head_dim));
}

double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

}  // namespace

std::vector<float> oracle_centroids(const OracleSequence& sequence, std::int32_t block) {
  require(sequence.page_tokens > 0 && block > 0 && block % sequence.page_tokens == 0,
          "oracle: the block must be a multiple of the page");
  const std::int32_t width = sequence.kv_heads * sequence.head_dim;
  std::vector<float> centroids;
  for (std::int64_t start = 0; start + block <= sequence.tokens; start += block) {
    for (std::int32_t column = 0; column < width; ++column) {
      float block_sum = 0;  // rule 2: the pages' sums one after the other, starting from zero
      for (std::int64_t page = start; page < start + block; page += sequence.page_tokens) {
        float page_sum = 0;  // rule 2: tokens of a page one after the other, starting from zero
        for (std::int64_t token = page; token < page + sequence.page_tokens; ++token) {
          page_sum += sequence.keys[static_cast<std::size_t>(token * width + column)];
        }
        block_sum += page_sum;
      }
      // rule 2: one division by B, rounded once
      centroids.push_back(round_to(sequence.dtype, block_sum / static_cast<float>(block)));
    }
  }
  return centroids;
}

std::vector<double> oracle_scores(const OracleSequence& sequence, std::span<const float> centroids,
                                  std::span<const float> query, std::int32_t kv_head,
                                  std::int64_t position, std::int32_t block) {
  std::vector<double> scores;
  // rule 4: blocks that end at or before the start of the position's own block
  const std::int64_t own_start = position / block * block;
  for (std::int64_t i = 0; (i + 1) * block <= own_start; ++i) {
    scores.push_back(dot(query, row_of(sequence, centroids, i, kv_head)));  // rule 3
  }
  return scores;
}

OracleSelection oracle_select(std::span<const double> scores, std::int32_t top_k) {
  require(top_k >= 1, "oracle: top_k must be at least 1");
  const auto current = static_cast<std::int32_t>(scores.size());
  std::vector<std::int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  // rule 5: highest scores first, equal scores go to the lower block index
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
  });
  // rule 5: k - 1 candidates join the current block; rule 7: or all, where there are no more
  const std::size_t chosen = std::min(order.size(), static_cast<std::size_t>(top_k) - 1);
  OracleSelection selection;
  if (chosen > 0 && chosen < order.size()) {
    selection.gap = scores[static_cast<std::size_t>(order[chosen - 1])] -
                    scores[static_cast<std::size_t>(order[chosen])];
  }
  selection.blocks.assign(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(chosen));
  std::sort(selection.blocks.begin(), selection.blocks.end());
  selection.blocks.push_back(current);  // rule 5: the current block is always attended
  return selection;
}

std::vector<double> oracle_attend(const OracleSequence& sequence, std::span<const float> query,
                                  std::int32_t kv_head, std::int64_t position, std::int32_t block,
                                  std::span<const std::int32_t> blocks) {
  std::vector<std::int64_t> tokens;
  for (const std::int32_t i : blocks) {
    const std::int64_t start = std::int64_t{i} * block;
    // rule 5: the current block is attended causally
    const std::int64_t end = std::min(start + block, position + 1);
    for (std::int64_t token = start; token < end; ++token) tokens.push_back(token);
  }
  // rule 6: one softmax over the keys of all selected blocks
  std::vector<double> scores;
  scores.reserve(tokens.size());
  for (const std::int64_t token : tokens) {
    scores.push_back(dot(query, row_of(sequence, sequence.keys, token, kv_head)) /
                     std::sqrt(static_cast<double>(sequence.head_dim)));
  }
  const std::vector<double> weights = oracle_softmax(scores);
  std::vector<double> out(static_cast<std::size_t>(sequence.head_dim), 0.0);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const std::span<const float> value = row_of(sequence, sequence.values, tokens[i], kv_head);
    for (std::size_t d = 0; d < out.size(); ++d) out[d] += weights[i] * double{value[d]};
  }
  return out;
}

OracleAttention oracle_attention(const OracleSequence& sequence, const AttentionPolicy& policy,
                                 std::span<const float> queries, std::int32_t heads,
                                 std::int64_t first_position) {
  require(
      sequence.kv_heads > 0 && sequence.head_dim > 0 && heads > 0 && heads % sequence.kv_heads == 0,
      "oracle: heads must be a multiple of kv_heads");
  const std::int64_t width = std::int64_t{heads} * sequence.head_dim;
  const auto query_count = static_cast<std::int64_t>(queries.size());
  require(query_count % width == 0, "oracle: queries must be [rows, heads, head_dim]");
  const std::int64_t rows = query_count / width;
  require(first_position >= 0 && first_position + rows <= sequence.tokens,
          "oracle: a query lies past the sequence's end");
  const auto stored = static_cast<std::size_t>(sequence.tokens * sequence.kv_heads *
                                               std::int64_t{sequence.head_dim});
  require(sequence.keys.size() == stored && sequence.values.size() == stored,
          "oracle: keys and values must be [tokens, kv_heads, head_dim]");

  OracleAttention result;
  const bool moba = policy.mode == AttentionMode::moba;
  const std::vector<float> centroids =
      moba ? oracle_centroids(sequence, policy.block) : std::vector<float>{};
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t position = first_position + row;
    for (std::int32_t head = 0; head < heads; ++head) {
      const auto query = queries.subspan(
          static_cast<std::size_t>(row * width + std::int64_t{head} * sequence.head_dim),
          static_cast<std::size_t>(sequence.head_dim));
      // rule 3: every query head chooses for itself, against the centroids of its KV head
      const std::int32_t kv_head = head / (heads / sequence.kv_heads);
      std::vector<double> out;
      if (moba) {
        OracleSelection selection = oracle_select(
            oracle_scores(sequence, centroids, query, kv_head, position, policy.block),
            policy.top_k);
        out = oracle_attend(sequence, query, kv_head, position, policy.block, selection.blocks);
        result.selections.push_back(std::move(selection));
      } else {
        // Full attention: one block as long as the sequence, causally.
        const std::int32_t only[] = {0};
        out = oracle_attend(sequence, query, kv_head, position,
                            static_cast<std::int32_t>(sequence.tokens), only);
      }
      result.out.insert(result.out.end(), out.begin(), out.end());
    }
  }
  return result;
}

}  // namespace mobius
