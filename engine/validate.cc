#include "engine/validate.h"

#include <cmath>
#include <cstdio>
#include <string>
#include <string_view>

#include "engine/routing.h"
#include "engine/tokenizer/utf8.h"
#include "kernels/attention.h"

namespace mobius {
namespace {

// As a person would write it: 0.7, not 0.699999988.
std::string number(float value) {
  if (std::isnan(value)) return "nan";
  char text[32];
  std::snprintf(text, sizeof text, "%g", static_cast<double>(value));
  return text;
}

Status refuse(std::string field, const std::string& what) {
  std::string message = field + " " + what;
  return Status::invalid(std::move(field), std::move(message));
}

// Refuses NaN too: every comparison with it is false.
Status check_range(std::string_view field, float value, float low, float high) {
  if (value >= low && value <= high) return {};
  return refuse(std::string(field), "is " + number(value) + ", must be a number from " +
                                        number(low) + " to " + number(high));
}

Status check_prompt(const GenerationRequest& request, const RunnerInfo& model,
                    std::int32_t max_context) {
  const std::size_t length = request.prompt.size();
  if (length == 0) return refuse("prompt", "has 0 tokens, must have at least 1");
  if (length >= static_cast<std::size_t>(max_context)) {
    return prompt_too_long(length, true, max_context);
  }
  for (std::size_t i = 0; i < length; ++i) {
    const std::int32_t token = request.prompt[i];
    if (token < 0 || token >= model.vocab_size) {
      return refuse("prompt[" + std::to_string(i) + "]", "is " + std::to_string(token) +
                                                             ", must be a token from 0 to " +
                                                             std::to_string(model.vocab_size - 1));
    }
  }
  return {};
}

Status check_sampling(const SamplingParams& params, const RunnerInfo& model) {
  Status status = check_range("temperature", params.temperature, 0.0F, kMaxTemperature);
  if (!status.ok()) return status;
  status = check_integer("top_k", params.top_k, kTopKRange);
  if (!status.ok()) return status;
  if (!(params.top_p > 0.0F && params.top_p <= 1.0F)) {
    return refuse("top_p",
                  "is " + number(params.top_p) + ", must be a number greater than 0 and at most 1");
  }
  status = check_range("min_p", params.min_p, 0.0F, 1.0F);
  if (!status.ok()) return status;
  status = check_range("repetition_penalty", params.repetition_penalty, kMinRepetitionPenalty,
                       kMaxRepetitionPenalty);
  if (!status.ok()) return status;
  status = check_range("presence_penalty", params.presence_penalty, -kMaxPenalty, kMaxPenalty);
  if (!status.ok()) return status;
  status = check_range("frequency_penalty", params.frequency_penalty, -kMaxPenalty, kMaxPenalty);
  if (!status.ok()) return status;
  if (params.top_logprobs != -1) {
    status = check_integer("top_logprobs", params.top_logprobs, kTopLogprobsRange);
    if (!status.ok()) return status;
  }
  for (const auto& [token, bias] : params.logit_bias) {
    status = check_token("logit_bias", token, model);
    if (!status.ok()) return status;
    status =
        check_range("logit_bias." + std::to_string(token), bias, -kMaxLogitBias, kMaxLogitBias);
    if (!status.ok()) return status;
  }
  return {};
}

Status check_ends(const GenerationRequest& request, const RunnerInfo& model) {
  if (request.ignore_eos && request.grammar != nullptr) {
    return refuse("ignore_eos", "is set; nothing can follow the end of an answer with a format");
  }
  if (request.max_tokens) {
    Status status = check_integer("max_tokens", *request.max_tokens, kMaxTokensRange);
    if (!status.ok()) return status;
  }
  if (request.stop.size() > kMaxStopStrings) {
    return refuse("stop", "has " + std::to_string(request.stop.size()) +
                              " strings, must have at most " + std::to_string(kMaxStopStrings));
  }
  for (std::size_t i = 0; i < request.stop.size(); ++i) {
    const std::string& stop = request.stop[i];
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return refuse("stop[" + std::to_string(i) + "]", "has " + std::to_string(stop.size()) +
                                                           " bytes, must have from 1 to " +
                                                           std::to_string(kMaxStopBytes));
    }
    if (utf8_valid_prefix(stop) != stop.size()) {
      return refuse("stop[" + std::to_string(i) + "]", "is not valid UTF-8");
    }
  }
  if (request.stop_tokens.size() > kMaxStopTokens) {
    return refuse("stop_token_ids", "has " + std::to_string(request.stop_tokens.size()) +
                                        " tokens, must have at most " +
                                        std::to_string(kMaxStopTokens));
  }
  for (const std::int32_t token : request.stop_tokens) {
    Status status = check_token("stop_token_ids", token, model);
    if (!status.ok()) return status;
  }
  return {};
}

Status check_policy(const std::string& phase, const AttentionPolicy& policy,
                    std::int32_t page_tokens) {
  const std::string wrong = validate(policy, page_tokens);
  if (wrong.empty()) return {};
  // The message opens with the member that is wrong.
  const std::string member = wrong.substr(0, wrong.find(' '));
  return Status::invalid("attention." + phase + "." + member, "attention." + phase + "." + wrong);
}

}  // namespace

Status check_integer(std::string_view field, std::int64_t value, const IntegerRange& range) {
  if (value >= range.low && value <= range.high) return {};
  std::string wanted = "at least " + std::to_string(range.low);
  if (value > range.high || range.high < IntegerRange{}.high) {
    wanted = "from " + std::to_string(range.low) + " to " + std::to_string(range.high);
  }
  return refuse(std::string(field),
                "is " + std::to_string(value) + ", must be " + wanted + std::string(range.note));
}

Status check_token(std::string_view field, std::int64_t token, const RunnerInfo& model) {
  if (token >= 0 && token < model.vocab_size) return {};
  return refuse(std::string(field), "has token " + std::to_string(token) + ", must be from 0 to " +
                                        std::to_string(model.vocab_size - 1));
}

Status prompt_too_long(std::size_t length, bool exact, std::int32_t max_context) {
  return refuse("prompt", std::string("has ") + (exact ? "" : "at least ") +
                              std::to_string(length) + " tokens, must have at most " +
                              std::to_string(max_context - 1) + " (the context is " +
                              std::to_string(max_context) +
                              " tokens, and at least one is generated)");
}

Status validate(const AttentionSettings& attention, std::int32_t num_layers,
                std::int32_t page_tokens) {
  Status status = check_policy("prefill", attention.prefill, page_tokens);
  if (!status.ok()) return status;
  status = check_policy("decode", attention.decode, page_tokens);
  if (!status.ok()) return status;
  return check_integer("attention.full_attention_last_layers", attention.full_attention_last_layers,
                       {.high = num_layers});
}

Status validate(const GenerationRequest& request, const RunnerInfo& model,
                std::int32_t max_context) {
  constexpr std::size_t kLongestClient = 256;
  if (request.client.size() > kLongestClient) {
    return refuse("user", "has " + std::to_string(request.client.size()) +
                              " bytes, must have at most " + std::to_string(kLongestClient));
  }
  // Cheap ones first; the prompt can have a million tokens.
  Status status = check_sampling(request.sampling, model);
  if (status.ok() && request.prompt_logprobs != -1) {
    status = check_integer("prompt_logprobs", request.prompt_logprobs, kTopLogprobsRange);
  }
  if (status.ok()) status = check_ends(request, model);
  if (status.ok()) {
    status = check_integer("priority", request.priority, kPriorityRange);
  }
  if (status.ok()) status = validate(request.attention, model.num_layers, model.page_tokens);
  if (status.ok()) status = validate_routing(request, model);
  if (status.ok()) status = check_prompt(request, model, max_context);
  return status;
}

}  // namespace mobius
