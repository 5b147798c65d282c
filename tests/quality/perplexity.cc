#include "tests/quality/perplexity.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <stdexcept>

namespace mobius {
namespace {

/// -log softmax(logits)[target].
double loss_of(std::span<const float> logits, std::int32_t target) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += static_cast<double>(std::exp(logit - largest));
  const double shifted = logits[static_cast<std::size_t>(target)] - largest;
  return std::log(sum) - shifted;
}

double mean_of(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// Mean over all windows of the losses [first, end) of each.
double mean_of(std::span<const std::vector<double>> losses, std::size_t first, std::size_t end) {
  double sum = 0;
  for (const std::vector<double>& window : losses) {
    sum += mean_of(std::span(window).subspan(first, end - first));
  }
  return sum / static_cast<double>(losses.size());
}

/// Reads a number of at least 1 and drops it from `text`.
bool take_number(std::string_view& text, std::int32_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 1) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

}  // namespace

std::string LossAttention::name() const {
  if (policy.mode == AttentionMode::full) return "full";
  return "moba:" + std::to_string(policy.block) + "/" + std::to_string(policy.top_k);
}

LossAttention parse_loss_attention(const std::string& text,
                                   std::int32_t full_attention_last_layers) {
  LossAttention result;
  result.full_attention_last_layers = full_attention_last_layers;
  if (text == "full") return result;
  std::string_view rest = text;
  constexpr std::string_view kMoba = "moba:";
  std::int32_t block = 0;
  std::int32_t top_k = 0;
  bool valid = rest.starts_with(kMoba);
  if (valid) rest.remove_prefix(kMoba.size());
  valid = valid && take_number(rest, block) && rest.starts_with('/');
  if (valid) rest.remove_prefix(1);
  valid = valid && take_number(rest, top_k) && rest.empty();
  if (!valid) {
    throw std::invalid_argument("attention \"" + text +
                                "\": must be full or moba:BLOCK/TOP_K, such as moba:512/8");
  }
  result.policy = AttentionPolicy::moba(block, top_k);
  return result;
}

std::vector<double> token_losses(LlamaRunner& runner, std::span<const std::int32_t> tokens,
                                 const LossAttention& attention) {
  const RunnerInfo& info = runner.info();
  if (tokens.size() < 2 || tokens.size() > static_cast<std::size_t>(info.limits.max_context)) {
    throw std::invalid_argument(std::to_string(tokens.size()) + " tokens: must be from 2 to " +
                                std::to_string(info.limits.max_context));
  }
  const std::string wrong = validate(attention.policy, info.page_tokens);
  if (!wrong.empty()) throw std::invalid_argument("attention " + attention.name() + ": " + wrong);

  if (attention.full_attention_last_layers < 0 ||
      attention.full_attention_last_layers > info.num_layers) {
    throw std::invalid_argument("full_attention_last_layers is " +
                                std::to_string(attention.full_attention_last_layers) +
                                ", must be from 0 to " + std::to_string(info.num_layers));
  }

  const auto vocab = static_cast<std::size_t>(info.vocab_size);
  // Logit rows are the scarce ones: a wide vocabulary makes them large.
  const auto step_rows =
      static_cast<std::size_t>(std::min(info.limits.max_rows, info.limits.max_sequences));
  std::vector<PageId> pages(static_cast<std::size_t>(info.num_pages));
  std::iota(pages.begin(), pages.end(), 0);
  std::vector<std::int32_t> rows(step_rows);
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<float> logits(step_rows * vocab);

  std::vector<double> losses;
  losses.reserve(tokens.size() - 1);
  const std::size_t inputs = tokens.size() - 1;  // the last token is only predicted
  for (std::size_t first = 0; first < inputs; first += step_rows) {
    const std::size_t count = std::min(step_rows, inputs - first);
    SequenceSlice slice;
    slice.num_rows = static_cast<std::int32_t>(count);
    slice.first_position = static_cast<std::int32_t>(first);
    slice.pages = pages;
    slice.policy = attention.policy;
    slice.full_attention_last_layers = attention.full_attention_last_layers;
    const std::span<float> out = std::span(logits).first(count * vocab);
    runner.forward(
        {tokens.subspan(first, count), std::span(&slice, 1), std::span(rows).first(count)}, out);
    for (std::size_t row = 0; row < count; ++row) {
      losses.push_back(loss_of(out.subspan(row * vocab, vocab), tokens[first + row + 1]));
    }
  }
  return losses;
}

LossSummary summarize(std::span<const std::vector<double>> losses,
                      std::span<const std::vector<double>> reference) {
  const auto windows = static_cast<double>(losses.size());
  const std::size_t length = losses.front().size();
  LossSummary summary;
  summary.tokens = static_cast<std::int64_t>(losses.size() * length);
  summary.mean = mean_of(losses, 0, length);
  summary.perplexity = std::exp(summary.mean);
  // The loss at index i predicts the token at position i + 1.
  for (std::size_t first = 1, end = 1024; first <= length; first = end, end *= 2) {
    const std::size_t last = std::min(end, length + 1);
    summary.ranges.push_back({static_cast<std::int32_t>(first),
                              static_cast<std::int32_t>(last - first),
                              mean_of(losses, first - 1, last - 1)});
  }

  const double expected = mean_of(reference, 0, length);
  summary.relative = (summary.mean - expected) / expected;
  if (losses.size() > 1) {
    // Windows differ far more from each other than the two attentions do on one of them.
    double squares = 0;
    for (std::size_t i = 0; i < losses.size(); ++i) {
      const double difference = mean_of(losses[i]) - mean_of(reference[i]);
      const double deviation = difference - (summary.mean - expected);
      squares += deviation * deviation;
    }
    summary.relative_error = std::sqrt(squares / (windows - 1) / windows) / expected;
  }
  return summary;
}

}  // namespace mobius
