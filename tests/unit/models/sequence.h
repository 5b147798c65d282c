#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "models/llama_runner.h"

namespace mobius {

/// One sequence of a test, fed to a runner in steps of any size. Holds its pages and policy.
struct Sequence {
  std::vector<PageId> pages;
  AttentionPolicy policy = {};
  std::int32_t full_attention_last_layers = 0;
  std::int32_t cached = 0;  ///< tokens in the cache

  /// Pages [first, first + count) of the pool.
  static std::vector<PageId> page_range(std::int32_t first, std::int32_t count) {
    std::vector<PageId> pages(static_cast<std::size_t>(count));
    std::iota(pages.begin(), pages.end(), first);
    return pages;
  }
};

/// Tokens of several sequences packed into one step.
class PackedStep {
 public:
  void add(Sequence& sequence, std::span<const std::int32_t> tokens) {
    const auto count = static_cast<std::int32_t>(tokens.size());
    slices_.push_back({.first_row = static_cast<std::int32_t>(tokens_.size()),
                       .num_rows = count,
                       .first_position = sequence.cached,
                       .pages = sequence.pages,
                       .policy = sequence.policy,
                       .full_attention_last_layers = sequence.full_attention_last_layers});
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    sequence.cached += count;
  }

  /// The step, with the logits of these rows, which must outlive the view.
  StepView view(std::span<const std::int32_t> logit_rows) const {
    return {tokens_, slices_, logit_rows};
  }
  std::int32_t rows() const { return static_cast<std::int32_t>(tokens_.size()); }

 private:
  std::vector<std::int32_t> tokens_;
  std::vector<SequenceSlice> slices_;
};

/// Feeds `tokens` in chunks of `chunk` and returns the logits [tokens.size(), vocab].
inline std::vector<float> logits_of(LlamaRunner& runner, Sequence& sequence,
                                    std::span<const std::int32_t> tokens, std::size_t chunk) {
  const auto vocab = static_cast<std::size_t>(runner.config().vocab_size);
  std::vector<float> logits(tokens.size() * vocab);
  for (std::size_t first = 0; first < tokens.size(); first += chunk) {
    const auto part = tokens.subspan(first, std::min(chunk, tokens.size() - first));
    PackedStep step;
    step.add(sequence, part);
    std::vector<std::int32_t> rows(part.size());
    std::iota(rows.begin(), rows.end(), 0);
    runner.forward(step.view(rows), std::span(logits).subspan(first * vocab, part.size() * vocab));
  }
  return logits;
}

/// The most likely of one row of logits.
inline std::int32_t best_token(std::span<const float> logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace mobius
