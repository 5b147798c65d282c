#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "models/llama_runner.h"

namespace mobius {

/// One way to attend that is to be compared.
struct LossAttention {
  AttentionPolicy policy;
  std::int32_t full_attention_last_layers = 0;

  std::string name() const;  ///< "full", "moba:512/8"
};

/// Reads "full" or "moba:BLOCK/TOP_K". Throws std::invalid_argument that names the text.
LossAttention parse_loss_attention(const std::string& text,
                                   std::int32_t full_attention_last_layers);

/// -log p(tokens[i] | tokens[0 .. i-1]) in nats, for i = 1 .. tokens.size() - 1: one value less
/// than tokens. All of them are prompt tokens: the policy is prefill's. Steps are as large as the
/// runner computes logits for. Uses the runner's first pages and leaves nothing behind. Throws
/// std::invalid_argument for fewer than two tokens or more than the runner's context.
std::vector<double> token_losses(LlamaRunner& runner, std::span<const std::int32_t> tokens,
                                 const LossAttention& attention);

/// Mean loss of the positions [first, first + count) of all windows.
struct LossRange {
  std::int32_t first = 0;  ///< position in the window of the token that is predicted
  std::int32_t count = 0;
  double mean = 0;
};

/// Losses of equally long windows of a text: window w's token at position p is losses[w][p - 1].
struct LossSummary {
  std::int64_t tokens = 0;  ///< that were predicted
  double mean = 0;          ///< nats
  double perplexity = 0;
  std::vector<LossRange> ranges;  ///< [1, 1024), [1024, 2048), [2048, 4096), ... up to the window

  /// Against another attention on the same windows.
  double relative = 0;        ///< (mean - other mean) / other mean
  double relative_error = 0;  ///< its standard error over windows; 0 for a single one
};

/// `losses` and `reference` have the same shape, at least one window, no empty one.
LossSummary summarize(std::span<const std::vector<double>> losses,
                      std::span<const std::vector<double>> reference);

}  // namespace mobius
