#include "server/generation_options.h"

#include <cmath>
#include <cstdio>
#include <limits>

#include "engine/validate.h"

namespace mobius {
namespace {

/// Narrows options, keeping the first that does not fit.
class Narrower {
 public:
  const Status& status() const { return status_; }

  /// Those that fit pass: the engine judges them, in the same words.
  std::optional<std::int32_t> integer(const std::string& field, std::optional<std::int64_t> value,
                                      const IntegerRange& range) {
    if (!value.has_value()) return std::nullopt;
    if (fits(*value)) return static_cast<std::int32_t>(*value);
    keep(check_integer(field, *value, range));
    return std::nullopt;
  }

  std::int32_t token(const std::string& field, std::int64_t value, const RunnerInfo& model) {
    if (fits(value)) return static_cast<std::int32_t>(value);
    keep(check_token(field, value, model));
    return 0;
  }

  /// NaN and infinity pass: they are refused with the field's own limits later.
  std::optional<float> number(const std::string& field, std::optional<double> value) {
    if (!value.has_value()) return std::nullopt;
    const double limit = std::numeric_limits<float>::max();
    if (std::isfinite(*value) && std::abs(*value) > limit) {
      fail(field, "is " + text(*value) + ", must be from " + text(-limit) + " to " + text(limit));
      return std::nullopt;
    }
    return static_cast<float>(*value);
  }

 private:
  static std::string text(double value) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%g", value);
    return buffer;
  }

  static bool fits(std::int64_t value) {
    using Limits = std::numeric_limits<std::int32_t>;
    return value >= Limits::min() && value <= Limits::max();
  }

  void keep(const Status& status) {
    if (status_.ok()) status_ = status;
  }
  void fail(const std::string& field, const std::string& problem) {
    keep(Status::invalid(field, field + ' ' + problem));
  }

  Status status_;
};

/// Keeps the default where the option is not set.
template <typename T>
void assign(T& out, const std::optional<T>& value) {
  if (value.has_value()) out = *value;
}

void merge_policy(Narrower& narrow, const std::string& field, const PolicyOverride& wanted,
                  AttentionPolicy& policy) {
  assign(policy.mode, wanted.mode);
  assign(policy.block, narrow.integer(field + ".block", wanted.block, {.low = 1}));
  assign(policy.top_k, narrow.integer(field + ".top_k", wanted.top_k, {.low = 1}));
}

}  // namespace

Status resolve_options(const GenerationOptions& options, const AttentionSettings& defaults,
                       const RunnerInfo& model, GenerationRequest& request) {
  Narrower narrow;
  SamplingParams& sampling = request.sampling;
  assign(sampling.temperature, narrow.number("temperature", options.temperature));
  assign(sampling.top_p, narrow.number("top_p", options.top_p));
  assign(sampling.top_k, narrow.integer("top_k", options.top_k, kTopKRange));
  assign(sampling.min_p, narrow.number("min_p", options.min_p));
  assign(sampling.repetition_penalty,
         narrow.number("repetition_penalty", options.repetition_penalty));
  assign(sampling.presence_penalty, narrow.number("presence_penalty", options.presence_penalty));
  assign(sampling.frequency_penalty, narrow.number("frequency_penalty", options.frequency_penalty));
  if (options.top_logprobs.has_value()) {
    // Here, because -1 is the engine's own sign for "none"; a client must not reach it by accident.
    Status status = check_integer("top_logprobs", *options.top_logprobs, kTopLogprobsRange);
    if (!status.ok()) return status;
    sampling.top_logprobs = static_cast<std::int32_t>(*options.top_logprobs);
  }
  if (options.prompt_logprobs.has_value()) {
    Status status = check_integer("prompt_logprobs", *options.prompt_logprobs, kTopLogprobsRange);
    if (!status.ok()) return status;
    request.prompt_logprobs = static_cast<std::int32_t>(*options.prompt_logprobs);
  }
  for (const auto& [id, bias] : options.logit_bias) {
    sampling.logit_bias.emplace_back(
        narrow.token("logit_bias", id, model),
        narrow.number("logit_bias." + std::to_string(id), bias).value_or(0.0F));
  }
  request.max_tokens = narrow.integer("max_tokens", options.max_tokens, kMaxTokensRange);
  request.stop = options.stop;
  for (const std::int64_t id : options.stop_token_ids) {
    request.stop_tokens.push_back(narrow.token("stop_token_ids", id, model));
  }
  request.ignore_eos = options.ignore_eos;

  request.attention = defaults;
  merge_policy(narrow, "attention.prefill", options.attention.prefill, request.attention.prefill);
  merge_policy(narrow, "attention.decode", options.attention.decode, request.attention.decode);
  assign(request.attention.full_attention_last_layers,
         narrow.integer("attention.full_attention_last_layers",
                        options.attention.full_attention_last_layers, {.high = model.num_layers}));

  request.report_progress = options.progress;
  request.report_routing = options.routing;
  assign(request.priority, narrow.integer("priority", options.priority, kPriorityRange));
  request.client = options.user;
  request.deadline = options.deadline;
  request.timeout = options.timeout;
  return narrow.status();
}

}  // namespace mobius
