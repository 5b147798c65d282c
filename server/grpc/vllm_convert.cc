#include "server/grpc/vllm_convert.h"

#include <algorithm>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/grpc/grpc_convert.h"
#include "server/json.h"

namespace mobius {
namespace {

using vllm_api::SamplingParams;

Status refuse(const std::string& field, const std::string& problem) {
  return Status::invalid(field, field + " " + problem);
}

Status unsupported(const std::string& field) {
  return refuse(field, "is set; this server does not support it");
}

Status read_format(const SamplingParams& params, ResponseFormat& format) {
  switch (params.constraint_case()) {
    case SamplingParams::CONSTRAINT_NOT_SET: return {};
    case SamplingParams::kJsonSchema:
      format.kind = ResponseFormat::Kind::json_schema;
      format.schema = params.json_schema();
      return {};
    case SamplingParams::kJsonObject:
      if (params.json_object()) format.kind = ResponseFormat::Kind::json_object;
      return {};
    case SamplingParams::kRegex: return unsupported("regex");
    case SamplingParams::kGrammar: return unsupported("grammar");
    case SamplingParams::kStructuralTag: return unsupported("structural_tag");
    case SamplingParams::kChoice: return unsupported("choice");
  }
  return {};
}

Status read_options(const SamplingParams& params, GenerationOptions& options) {
  // What cannot be 0 and has no presence has its default there.
  if (params.has_temperature()) options.temperature = params.temperature();
  if (params.top_p() != 0) options.top_p = params.top_p();
  options.top_k = params.top_k();
  options.min_p = params.min_p();
  options.frequency_penalty = params.frequency_penalty();
  options.presence_penalty = params.presence_penalty();
  if (params.repetition_penalty() != 0) options.repetition_penalty = params.repetition_penalty();
  if (params.has_max_tokens()) options.max_tokens = params.max_tokens();
  if (params.min_tokens() != 0) {
    return refuse("min_tokens",
                  "is " + std::to_string(params.min_tokens()) + "; this server supports only 0");
  }
  if (params.has_truncate_prompt_tokens()) return unsupported("truncate_prompt_tokens");
  options.stop.assign(params.stop().begin(), params.stop().end());
  options.stop_token_ids.assign(params.stop_token_ids().begin(), params.stop_token_ids().end());
  options.ignore_eos = params.ignore_eos();
  if (params.n() != 0) options.n = params.n();
  if (params.has_logprobs()) options.top_logprobs = params.logprobs();
  if (params.has_prompt_logprobs()) options.prompt_logprobs = params.prompt_logprobs();
  if (params.has_seed()) options.seed = static_cast<std::uint64_t>(std::int64_t{params.seed()});
  for (const auto& [id, bias] : params.logit_bias()) options.logit_bias.emplace_back(id, bias);
  return read_format(params, options.response_format);
}

/// Refuses what belongs to engines of another kind.
Status check_members(const vllm_api::GenerateRequest& request) {
  if (request.has_mm_inputs()) return unsupported("mm_inputs");
  if (request.has_kv_transfer_params()) return unsupported("kv_transfer_params");
  if (request.has_kv_transfer_params_json()) return unsupported("kv_transfer_params_json");
  if (request.data_parallel_rank() != 0) {
    return refuse("data_parallel_rank", "is " + std::to_string(request.data_parallel_rank()) +
                                            "; this server has only 0");
  }
  constexpr std::size_t kLongestId = 128;
  if (request.request_id().size() > kLongestId) {
    return refuse("request_id", "has " + std::to_string(request.request_id().size()) +
                                    " bytes, must have at most " + std::to_string(kLongestId));
  }
  // It goes into logs, answers and Abort.
  const bool printable =
      std::ranges::all_of(request.request_id(), [](char c) { return c > ' ' && c <= '~'; });
  if (!printable) {
    return refuse("request_id", "is \"" + brief_text(request.request_id()) +
                                    "\", must have printable ASCII characters and no spaces");
  }
  return {};
}

StatusOr<Prompt> read_prompt(const vllm_api::GenerateRequest& request, std::int32_t vocab_size) {
  if (request.has_text()) return Prompt(request.text());
  if (!request.has_tokenized()) return refuse("input", "is missing; set tokenized or text");
  const auto& ids = request.tokenized().input_ids();
  std::vector<std::int32_t> tokens;
  tokens.reserve(static_cast<std::size_t>(ids.size()));
  for (int i = 0; i < ids.size(); ++i) {
    // Those that fit are the engine's to judge, in the same words.
    if (ids[i] > static_cast<std::uint32_t>(std::numeric_limits<std::int32_t>::max())) {
      return refuse("tokenized.input_ids[" + std::to_string(i) + "]",
                    "is " + std::to_string(ids[i]) + ", must be a token from 0 to " +
                        std::to_string(vocab_size - 1));
    }
    tokens.push_back(static_cast<std::int32_t>(ids[i]));
  }
  return Prompt(std::move(tokens));
}

template <typename List>
void add_top(const std::vector<TokenLogprob>& top, List& list) {
  vllm_api::TopLogProbs& shown = *list.Add();
  for (const TokenLogprob& other : top) {
    shown.add_token_ids(static_cast<std::uint32_t>(other.token));
    shown.add_values(other.logprob);
  }
}

class VllmWriter final : public EventWriter<vllm_api::GenerateResponse> {
 public:
  explicit VllmWriter(const vllm_api::GenerateRequest& request)
      : stream_(request.stream()),
        logprobs_(request.sampling_params().has_logprobs()),
        top_(request.sampling_params().logprobs() > 0),
        prompt_top_(request.sampling_params().prompt_logprobs() > 0),
        prompt_(request.has_text() ? "text" : "tokenized.input_ids") {
    const auto& ids = request.sampling_params().stop_token_ids();
    stop_tokens_.assign(ids.begin(), ids.end());
  }

  void begin(const Generation& generation) override {
    prompt_tokens_ = static_cast<std::uint32_t>(generation.prompt_tokens);
    choices_.resize(generation.choices.size());
  }

  bool write(std::size_t index, const Event& event, vllm_api::GenerateResponse& message) override {
    Gathered& choice = choices_[index];
    if (const auto* prompt = std::get_if<PromptTokens>(&event)) {
      add_prompt(*prompt, choice.input);
      return false;
    }
    if (const auto* delta = std::get_if<TokenDelta>(&event)) {
      choice.last = static_cast<std::uint32_t>(delta->token.token);
      if (!stream_) {
        choice.ids.push_back(choice.last);
        if (logprobs_) add_token(delta->token, choice.output);
        return false;
      }
      vllm_api::GenerateStreamChunk& chunk = *message.mutable_chunk();
      chunk.add_token_ids(choice.last);
      chunk.set_prompt_tokens(prompt_tokens_);
      chunk.set_completion_tokens(1);
      chunk.set_index(static_cast<std::uint32_t>(index));
      if (logprobs_) add_token(delta->token, *chunk.mutable_output_logprobs());
      give_input(choice, chunk);
      return true;
    }
    const auto* finish = std::get_if<Finish>(&event);
    if (finish == nullptr) return false;
    complete(index, *finish, *message.mutable_complete());
    return true;
  }

  Status named(const Status& status) const override {
    if (status.field() == "id") return status.with_field("request_id");
    if (status.field() == "top_logprobs") return status.with_field("logprobs");
    if (status.field() == "response_format.schema") return status.with_field("json_schema");
    return with_grpc_names(status, prompt_);
  }

 private:
  struct Gathered {
    std::vector<std::uint32_t> ids;  // where they are not streamed, and so are their scores
    vllm_api::OutputLogProbs output;
    vllm_api::InputLogProbs input;
    std::uint32_t last = 0;
  };

  void add_token(const SampledToken& token, vllm_api::OutputLogProbs& list) const {
    list.add_token_ids(static_cast<std::uint32_t>(token.token));
    list.add_token_logprobs(token.logprob);
    if (top_) add_top(token.top, *list.mutable_top_logprobs());
  }

  void add_prompt(const PromptTokens& prompt, vllm_api::InputLogProbs& list) const {
    for (const SampledToken& token : prompt.tokens) {
      const bool first = list.token_ids_size() == 0;
      list.add_token_ids(static_cast<std::uint32_t>(token.token));
      vllm_api::InputTokenLogProb& own = *list.add_token_logprobs();
      if (!first) own.set_value(token.logprob);
      if (prompt_top_) add_top(token.top, *list.mutable_top_logprobs());
    }
  }

  /// Once: with a choice's first message.
  template <typename Message>
  static void give_input(Gathered& choice, Message& message) {
    if (choice.input.token_ids_size() == 0) return;
    message.mutable_input_logprobs()->Swap(&choice.input);
    choice.input.Clear();
  }

  void complete(std::size_t index, const Finish& finish, vllm_api::GenerateComplete& message) {
    Gathered& choice = choices_[index];
    message.mutable_output_ids()->Add(choice.ids.begin(), choice.ids.end());
    if (choice.output.token_ids_size() > 0) {
      message.mutable_output_logprobs()->Swap(&choice.output);
    }
    give_input(choice, message);
    message.set_finish_reason(finish.reason == FinishReason::length ? "length" : "stop");
    message.set_prompt_tokens(prompt_tokens_);
    message.set_completion_tokens(static_cast<std::uint32_t>(finish.usage.completion_tokens));
    message.set_cached_tokens(static_cast<std::uint32_t>(finish.usage.cached_tokens));
    message.set_index(static_cast<std::uint32_t>(index));
    if (finish.reason != FinishReason::stop) return;
    if (!finish.stop_sequence.empty()) {
      message.set_matched_stop_str(finish.stop_sequence);
    } else if (std::ranges::count(stop_tokens_, choice.last) > 0) {
      message.set_matched_token_id(choice.last);
    }
  }

  bool stream_;
  bool logprobs_;
  bool top_;
  bool prompt_top_;
  std::string prompt_;
  std::vector<std::uint32_t> stop_tokens_;
  std::uint32_t prompt_tokens_ = 0;
  std::vector<Gathered> choices_;
};

}  // namespace

StatusOr<CompletionInput> to_input(const vllm_api::GenerateRequest& request,
                                   std::int32_t vocab_size) {
  if (Status status = check_members(request); !status.ok()) return status;
  StatusOr<Prompt> prompt = read_prompt(request, vocab_size);
  if (!prompt.ok()) return prompt.status();
  CompletionInput input;
  input.id = request.request_id();
  input.prompts = {std::move(prompt).value()};
  Status status = read_options(request.sampling_params(), input.options);
  if (!status.ok()) return status;
  return input;
}

std::unique_ptr<EventWriter<vllm_api::GenerateResponse>> make_vllm_writer(
    const vllm_api::GenerateRequest& request) {
  return std::make_unique<VllmWriter>(request);
}

}  // namespace mobius
