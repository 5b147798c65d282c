#include "kernels/attention.h"

#include <algorithm>

namespace mobius {

std::string validate(const AttentionPolicy& policy, std::int32_t page_tokens) {
  if (policy.mode == AttentionMode::full) return {};
  if (policy.block < page_tokens || policy.block % page_tokens != 0) {
    return "block is " + std::to_string(policy.block) +
           ", must be a positive multiple of the page (" + std::to_string(page_tokens) + " tokens)";
  }
  if (policy.top_k < 1) return "top_k is " + std::to_string(policy.top_k) + ", must be at least 1";
  return {};
}

BlockReads count_block_reads(const AttentionPolicy& policy, std::int64_t first, std::int64_t count,
                             std::int32_t block) {
  const std::int64_t size = policy.mode == AttentionMode::moba ? policy.block : block;
  BlockReads reads;
  // Queries of one block see the same number of blocks, so walk block by block, not query by query.
  for (std::int64_t position = first; position < first + count;) {
    const std::int64_t visible = position / size + 1;
    const std::int64_t queries = std::min(visible * size, first + count) - position;
    const std::int64_t read = policy.mode == AttentionMode::moba
                                  ? std::min<std::int64_t>(policy.top_k, visible)
                                  : visible;
    reads.read += queries * read;
    reads.total += queries * visible;
    position += queries;
  }
  return reads;
}

}  // namespace mobius
