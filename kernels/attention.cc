#include "kernels/attention.h"

#include <algorithm>
#include <stdexcept>

namespace mobius {

std::int32_t attended_blocks(const AttentionPolicy& policy, std::int32_t position) {
  return std::min(policy.top_k, position / policy.block + 1);
}

std::string validate(const AttentionPolicy& policy, std::int32_t page_tokens) {
  if (policy.mode == AttentionMode::full) return {};
  if (policy.block < page_tokens || policy.block % page_tokens != 0) {
    return "block is " + std::to_string(policy.block) +
           ", must be a positive multiple of the page (" + std::to_string(page_tokens) + " tokens)";
  }
  if (policy.top_k < 1) return "top_k is " + std::to_string(policy.top_k) + ", must be at least 1";
  return {};
}

void check_pages(const KvShape& shape) {
  const auto refuse = [](const std::string& what) {
    throw std::runtime_error("KV cache: " + what);
  };
  if (shape.page_tokens < 16 || shape.page_tokens % 16 != 0) {
    refuse("page_tokens is " + std::to_string(shape.page_tokens) +
           ", must be a positive multiple of 16");
  }
  if (shape.centroid_block < 0 || shape.centroid_block % shape.page_tokens != 0) {
    refuse("centroid_block is " + std::to_string(shape.centroid_block) +
           ", must be 0 or a multiple of the page (" + std::to_string(shape.page_tokens) +
           " tokens)");
  }
  if (shape.num_layers < 1 || shape.num_pages < 1 || shape.kv_heads < 1) {
    refuse("needs at least one layer, page and head; has " + std::to_string(shape.num_layers) +
           ", " + std::to_string(shape.num_pages) + " and " + std::to_string(shape.kv_heads));
  }
}

void check_slices(std::span<const SequenceSlice> slices, const KvShape& shape, std::int64_t rows) {
  const auto require = [](bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
  };
  std::int64_t covered = 0;
  for (const SequenceSlice& slice : slices) {
    require(slice.first_row == covered, "slices must cover the rows in order");
    require(slice.num_rows > 0 && slice.first_position >= 0, "slice without rows or position");
    covered += slice.num_rows;
    const std::int64_t tokens = std::int64_t{slice.first_position} + slice.num_rows;
    const std::int64_t pages = (tokens + shape.page_tokens - 1) / shape.page_tokens;
    require(static_cast<std::int64_t>(slice.pages.size()) >= pages, "slice has too few pages");
    for (const PageId page : slice.pages) {
      require(page >= 0 && page < shape.num_pages, "page id out of range");
    }
    if (const std::string wrong = validate(slice.policy, shape.page_tokens); !wrong.empty()) {
      throw std::invalid_argument(wrong);
    }
  }
  require(covered == rows, "slices do not cover the rows");
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
