#include "server/generation_options.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string_view>

namespace mobius {
namespace {

constexpr std::int64_t kMaxInt32 = std::numeric_limits<std::int32_t>::max();
constexpr std::size_t kMaxStopStrings = 16;
constexpr std::size_t kMaxStopBytes = 1024;
constexpr std::size_t kMaxStopTokens = 1024;
constexpr std::size_t kMaxLogitBias = 1024;

/// Collects the first failure of a sequence of checks.
class Checker {
 public:
  const Status& status() const { return status_; }

  void fail(const std::string& field, const std::string& problem) {
    if (status_.ok()) status_ = Status::invalid(field, field + " " + problem);
  }

  /// `out` keeps its default where the option is not set.
  template <typename T>
  void integer(const std::string& field, const std::optional<std::int64_t>& value, std::int64_t min,
               std::int64_t max, T& out) {
    if (!value.has_value()) return;
    if (*value < min || *value > max) {
      fail(field, "is " + std::to_string(*value) + "; must be " + std::to_string(min) + " to " +
                      std::to_string(max));
      return;
    }
    out = static_cast<std::int32_t>(*value);
  }

  void number(const std::string& field, const std::optional<double>& value, double min, double max,
              float& out, bool min_excluded = false) {
    if (!value.has_value()) return;
    // Written so that NaN fails.
    const bool fits = (min_excluded ? *value > min : *value >= min) && *value <= max;
    if (!fits) {
      fail(field, "is " + text(*value) + "; must be " +
                      (min_excluded ? "more than " + text(min) + " and at most " + text(max)
                                    : text(min) + " to " + text(max)));
      return;
    }
    out = static_cast<float>(*value);
  }

 private:
  static std::string text(double value) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%g", value);
    return buffer;
  }

  Status status_;
};

void resolve_policy(Checker& checker, const std::string& field, const PolicyOverride& wanted,
                    const OptionLimits& limits, AttentionPolicy& policy) {
  if (wanted.mode.has_value()) policy.mode = *wanted.mode;
  checker.integer(field + ".block", wanted.block, 1, kMaxInt32, policy.block);
  checker.integer(field + ".top_k", wanted.top_k, 1, kMaxInt32, policy.top_k);
  if (policy.mode == AttentionMode::moba && policy.block % limits.page_tokens != 0) {
    checker.fail(field + ".block", "is " + std::to_string(policy.block) +
                                       "; must be a multiple of the page, " +
                                       std::to_string(limits.page_tokens) + " tokens");
  }
}

void check_stop(Checker& checker, const GenerationOptions& options, const OptionLimits& limits,
                GenerationRequest& request) {
  if (options.stop.size() > kMaxStopStrings) {
    checker.fail("stop", "has " + std::to_string(options.stop.size()) + " strings; at most " +
                             std::to_string(kMaxStopStrings) + " are allowed");
  }
  for (const std::string& stop : options.stop) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      checker.fail("stop", "has a string of " + std::to_string(stop.size()) +
                               " bytes; must be 1 to " + std::to_string(kMaxStopBytes));
    }
  }
  if (options.stop_token_ids.size() > kMaxStopTokens) {
    checker.fail("stop_token_ids", "has " + std::to_string(options.stop_token_ids.size()) +
                                       " ids; at most " + std::to_string(kMaxStopTokens) +
                                       " are allowed");
  }
  request.stop = options.stop;
  for (const std::int64_t id : options.stop_token_ids) {
    std::int32_t token = 0;
    checker.integer("stop_token_ids", id, 0, limits.vocab_size - 1, token);
    request.stop_tokens.push_back(token);
  }
}

void check_logit_bias(Checker& checker, const GenerationOptions& options,
                      const OptionLimits& limits, SamplingParams& sampling) {
  if (options.logit_bias.size() > kMaxLogitBias) {
    checker.fail("logit_bias", "has " + std::to_string(options.logit_bias.size()) +
                                   " entries; at most " + std::to_string(kMaxLogitBias) +
                                   " are allowed");
  }
  for (const auto& [id, bias] : options.logit_bias) {
    const std::string field = "logit_bias." + std::to_string(id);
    if (id < 0 || id >= limits.vocab_size) {
      checker.fail(field, "is no token; ids are 0 to " + std::to_string(limits.vocab_size - 1));
      return;
    }
    float value = 0.0F;
    checker.number(field, bias, -100.0, 100.0, value);
    sampling.logit_bias.emplace_back(static_cast<std::int32_t>(id), value);
  }
  std::sort(sampling.logit_bias.begin(), sampling.logit_bias.end());
}

}  // namespace

Status resolve_options(const GenerationOptions& options, const OptionLimits& limits,
                       GenerationRequest& request) {
  Checker checker;
  SamplingParams& sampling = request.sampling;
  checker.integer("max_tokens", options.max_tokens, 1, kMaxInt32, request.max_tokens);
  checker.number("temperature", options.temperature, 0.0, 2.0, sampling.temperature);
  checker.number("top_p", options.top_p, 0.0, 1.0, sampling.top_p, /*min_excluded=*/true);
  checker.integer("top_k", options.top_k, 0, kMaxInt32, sampling.top_k);
  checker.number("min_p", options.min_p, 0.0, 1.0, sampling.min_p);
  checker.number("repetition_penalty", options.repetition_penalty, 0.0, 10.0,
                 sampling.repetition_penalty, /*min_excluded=*/true);
  checker.number("presence_penalty", options.presence_penalty, -2.0, 2.0,
                 sampling.presence_penalty);
  checker.number("frequency_penalty", options.frequency_penalty, -2.0, 2.0,
                 sampling.frequency_penalty);
  checker.integer("top_logprobs", options.top_logprobs, 0, 20, sampling.top_logprobs);
  check_logit_bias(checker, options, limits, sampling);
  check_stop(checker, options, limits, request);
  request.ignore_eos = options.ignore_eos;

  request.attention = limits.attention;
  resolve_policy(checker, "attention.prefill", options.attention.prefill, limits,
                 request.attention.prefill);
  resolve_policy(checker, "attention.decode", options.attention.decode, limits,
                 request.attention.decode);
  checker.integer("attention.full_attention_last_layers",
                  options.attention.full_attention_last_layers, 0, limits.num_layers,
                  request.attention.full_attention_last_layers);

  request.report_progress = options.progress;
  request.deadline = options.deadline;
  return checker.status();
}

}  // namespace mobius
