#include "server/grpc/grpc_convert.h"

#include <string_view>
#include <utility>

#include "engine/routing.h"
#include "server/json.h"

namespace mobius {
namespace {

template <typename T, typename U>
std::optional<T> optional_of(bool has, U value) {
  if (!has) return std::nullopt;
  return static_cast<T>(value);
}

Status to_policy(const v1::AttentionPolicy& message, const std::string& name,
                 PolicyOverride& policy) {
  switch (message.mode()) {
    case v1::AttentionPolicy::MODE_UNSPECIFIED: break;
    case v1::AttentionPolicy::MODE_FULL: policy.mode = AttentionMode::full; break;
    case v1::AttentionPolicy::MODE_MOBA: policy.mode = AttentionMode::moba; break;
    default: {
      const std::string field = name + ".mode";
      return Status::invalid(field, field + " is " + std::to_string(message.mode()) +
                                        ", must be MODE_FULL (1) or MODE_MOBA (2)");
    }
  }
  policy.block = optional_of<std::int64_t>(message.has_block(), message.block());
  policy.top_k = optional_of<std::int64_t>(message.has_top_k(), message.top_k());
  return {};
}

Status to_choice(const v1::ToolChoice& message, ToolChoice& choice) {
  using Kind = ToolChoice::Kind;
  if (message.has_function()) {
    choice = {Kind::named, message.function()};
    return {};
  }
  switch (message.mode()) {
    case v1::ToolChoice::MODE_UNSPECIFIED: return {};
    case v1::ToolChoice::MODE_NONE: choice.kind = Kind::none; return {};
    case v1::ToolChoice::MODE_REQUIRED: choice.kind = Kind::required; return {};
    default:
      return Status::invalid("tool_choice.mode",
                             "tool_choice.mode is " + std::to_string(message.mode()) +
                                 ", must be MODE_NONE (1) or MODE_REQUIRED (2)");
  }
}

ResponseFormat to_format(const v1::ResponseFormat& message) {
  ResponseFormat format;
  if (message.has_json_schema()) {
    format.kind = ResponseFormat::Kind::json_schema;
    format.schema = message.json_schema();
  } else if (message.json_object()) {
    format.kind = ResponseFormat::Kind::json_object;
  }
  return format;
}

Status to_options(const v1::GenerationOptions& message, GenerationOptions& options) {
  const auto& m = message;
  options.max_tokens = optional_of<std::int64_t>(m.has_max_tokens(), m.max_tokens());
  options.temperature = optional_of<double>(m.has_temperature(), m.temperature());
  options.top_p = optional_of<double>(m.has_top_p(), m.top_p());
  options.top_k = optional_of<std::int64_t>(m.has_top_k(), m.top_k());
  options.min_p = optional_of<double>(m.has_min_p(), m.min_p());
  options.seed = optional_of<std::uint64_t>(m.has_seed(), m.seed());
  options.repetition_penalty =
      optional_of<double>(m.has_repetition_penalty(), m.repetition_penalty());
  options.presence_penalty = optional_of<double>(m.has_presence_penalty(), m.presence_penalty());
  options.frequency_penalty = optional_of<double>(m.has_frequency_penalty(), m.frequency_penalty());
  for (const auto& [id, bias] : m.logit_bias()) options.logit_bias.emplace_back(id, bias);
  options.stop.assign(m.stop().begin(), m.stop().end());
  options.stop_token_ids.assign(m.stop_token_ids().begin(), m.stop_token_ids().end());
  options.ignore_eos = m.ignore_eos();
  options.n = optional_of<std::int64_t>(m.has_n(), m.n());
  options.prompt_logprobs = optional_of<std::int64_t>(m.has_prompt_logprobs(), m.prompt_logprobs());
  options.top_logprobs = optional_of<std::int64_t>(m.has_top_logprobs(), m.top_logprobs());
  options.progress = m.progress();
  options.routing = m.routing();
  options.priority = optional_of<std::int64_t>(m.has_priority(), m.priority());
  options.user = m.user();
  options.response_format = to_format(m.response_format());
  const v1::Attention& attention = m.attention();
  options.attention.full_attention_last_layers = optional_of<std::int64_t>(
      attention.has_full_attention_last_layers(), attention.full_attention_last_layers());
  Status status = to_policy(attention.prefill(), "attention.prefill", options.attention.prefill);
  if (!status.ok()) return status;
  return to_policy(attention.decode(), "attention.decode", options.attention.decode);
}

void set_block_reads(const BlockReads& reads, v1::BlockReads& message) {
  message.set_read(reads.read);
  message.set_total(reads.total);
}

/// The text and the calls of a Token or a Finished.
template <typename Message>
void set_answer(const EventForm& form, AnswerDelta answer, Message& message) {
  message.set_text(std::move(answer.content));
  for (ToolCallDelta& from : answer.calls) {
    v1::ToolCallDelta& call = *message.add_tool_calls();
    call.set_index(static_cast<std::int32_t>(from.index));
    if (!from.name.empty()) call.set_id(tool_call_id(form.id, form.choice, from.index));
    call.set_name(std::move(from.name));
    call.set_arguments(std::move(from.arguments));
  }
}

void add_top(const SampledToken& token, const Tokenizer& tokenizer,
             google::protobuf::RepeatedPtrField<v1::TokenLogprob>& list) {
  for (const TokenLogprob& other : token.top) {
    v1::TokenLogprob& top = *list.Add();
    top.set_id(other.token);
    top.set_text(std::string(tokenizer.bytes(other.token)));
    top.set_logprob(other.logprob);
  }
}

void set_prompt(const PromptTokens& prompt, const Tokenizer& tokenizer, v1::PromptTokens& message) {
  message.set_first(prompt.first);
  for (const SampledToken& token : prompt.tokens) {
    const bool first = prompt.first == 0 && message.tokens_size() == 0;
    v1::PromptToken& shown = *message.add_tokens();
    shown.set_id(token.token);
    if (!first) shown.set_logprob(token.logprob);
    add_top(token, tokenizer, *shown.mutable_top());
  }
}

void set_token(const TokenDelta& delta, bool with_logprobs, const Tokenizer& tokenizer,
               v1::Token& message) {
  message.set_id(delta.token.token);
  if (!with_logprobs) return;
  message.set_logprob(delta.token.logprob);
  add_top(delta.token, tokenizer, *message.mutable_top());
}

void set_routing(const Routing& routing, v1::Routing& message) {
  message.set_tokens(routing.tokens);
  message.set_block(routing.block);
  message.set_blocks(routing.blocks);
  message.set_first_own_block(routing.first_own_block);
  message.set_layers(routing.layers);
  message.set_full_layers(routing.full_layers);
  message.set_heads(routing.heads);
  message.set_column_blocks(routing.column_blocks);
  message.set_columns(routing.columns);
  message.mutable_counts()->Assign(routing.counts.begin(), routing.counts.end());
  for (const RoutedBlock& block : routing.top) {
    v1::RoutedBlock& shown = *message.add_top();
    shown.set_block(block.block);
    shown.set_first_token(block.first_token);
    shown.set_tokens(block.tokens);
    shown.set_count(block.attended);
    shown.set_own(block.own);
    shown.set_text(block.text);
  }
}

void set_finished(const Finish& finish, v1::Finished& message) {
  message.set_reason(finish.reason == FinishReason::length ? v1::Finished::REASON_LENGTH
                                                           : v1::Finished::REASON_STOP);
  message.mutable_usage()->set_prompt_tokens(finish.usage.prompt_tokens);
  message.mutable_usage()->set_cached_tokens(finish.usage.cached_tokens);
  message.mutable_usage()->set_completion_tokens(finish.usage.completion_tokens);
  message.mutable_timing()->set_queued_ms(milliseconds(finish.timing.queued));
  message.mutable_timing()->set_first_token_ms(milliseconds(finish.timing.first_token));
  message.mutable_timing()->set_total_ms(milliseconds(finish.timing.total));
  set_block_reads(finish.prefill_reads, *message.mutable_prefill_reads());
  set_block_reads(finish.decode_reads, *message.mutable_decode_reads());
  if (finish.routing != nullptr) set_routing(*finish.routing, *message.mutable_routing());
}

Status to_messages(const google::protobuf::RepeatedPtrField<v1::ChatMessage>& from_all,
                   std::vector<ChatMessage>& messages) {
  for (int i = 0; i < from_all.size(); ++i) {
    const v1::ChatMessage& from = from_all[i];
    const std::string path = "messages[" + std::to_string(i) + "]";
    const std::optional<ChatRole> role = chat_role_named(from.role());
    if (!role.has_value()) {
      return Status::invalid(path + ".role",
                             path + ".role is \"" + brief_text(from.role()) +
                                 "\", must be system, developer, user, assistant or tool");
    }
    ChatMessage message;
    message.role = *role;
    message.content = from.content();
    message.tool_call_id = from.tool_call_id();
    for (const v1::ToolCall& call : from.tool_calls()) {
      message.tool_calls.push_back({call.id(), call.name(), call.arguments()});
    }
    messages.push_back(std::move(message));
  }
  return {};
}

}  // namespace

StatusOr<CompletionInput> to_input(const v1::GenerateRequest& request) {
  CompletionInput input;
  input.model = request.model();
  switch (request.prompt_case()) {
    case v1::GenerateRequest::kText: input.prompts = {request.text()}; break;
    case v1::GenerateRequest::kTokens: {
      const auto& ids = request.tokens().ids();
      input.prompts = {std::vector<std::int32_t>(ids.begin(), ids.end())};
      break;
    }
    default: return Status::invalid("prompt", "prompt is missing; set text or tokens");
  }
  if (Status status = to_options(request.options(), input.options); !status.ok()) return status;
  return input;
}

StatusOr<ChatInput> to_input(const v1::ChatRequest& request) {
  ChatInput input;
  input.model = request.model();
  if (Status status = to_messages(request.messages(), input.messages); !status.ok()) return status;
  input.tools_json.assign(request.tools().begin(), request.tools().end());
  if (Status status = to_choice(request.tool_choice(), input.tool_choice); !status.ok()) {
    return status;
  }
  if (request.has_parallel_tool_calls()) input.parallel_tool_calls = request.parallel_tool_calls();
  if (Status status = to_options(request.options(), input.options); !status.ok()) return status;
  return input;
}

StatusOr<ChatInput> to_input(const v1::ChatPrompt& prompt) {
  ChatInput input;
  if (Status status = to_messages(prompt.messages(), input.messages); !status.ok()) return status;
  input.tools_json.assign(prompt.tools().begin(), prompt.tools().end());
  return input;
}

v1::Attention to_message(const AttentionSettings& settings) {
  const auto set_policy = [](const AttentionPolicy& policy, v1::AttentionPolicy& message) {
    const bool moba = policy.mode == AttentionMode::moba;
    message.set_mode(moba ? v1::AttentionPolicy::MODE_MOBA : v1::AttentionPolicy::MODE_FULL);
    message.set_block(policy.block);
    message.set_top_k(policy.top_k);
  };
  v1::Attention message;
  set_policy(settings.prefill, *message.mutable_prefill());
  set_policy(settings.decode, *message.mutable_decode());
  message.set_full_attention_last_layers(settings.full_attention_last_layers);
  return message;
}

v1::GenerateResponse to_message(const Event& event, const EventForm& form) {
  v1::GenerateResponse message;
  message.set_id(form.id);
  message.set_choice(static_cast<std::int32_t>(form.choice));
  ToolCallParser* const calls = form.calls;
  if (const auto* progress = std::get_if<PrefillProgress>(&event)) {
    message.mutable_progress()->set_total(progress->total);
    message.mutable_progress()->set_cached(progress->cached);
    message.mutable_progress()->set_done(progress->done);
    message.mutable_progress()->set_seconds_left(progress->seconds_left);
  } else if (const auto* prompt = std::get_if<PromptTokens>(&event)) {
    set_prompt(*prompt, form.tokenizer, *message.mutable_prompt());
  } else if (const auto* delta = std::get_if<TokenDelta>(&event)) {
    set_token(*delta, form.with_logprobs, form.tokenizer, *message.mutable_token());
    const std::int32_t token = delta->token.token;
    set_answer(form,
               calls == nullptr ? AnswerDelta{delta->text, {}} : calls->push(token, delta->text),
               *message.mutable_token());
  } else {
    const auto& finish = std::get<Finish>(event);
    v1::Finished& finished = *message.mutable_finished();
    set_finished(finish, finished);
    finished.set_seed(form.seed);
    set_answer(form, calls == nullptr ? AnswerDelta{finish.text, {}} : calls->finish(finish.text),
               finished);
    if (calls != nullptr && calls->calls() > 0 && finish.reason == FinishReason::stop) {
      finished.set_reason(v1::Finished::REASON_TOOL_CALLS);
    }
  }
  return message;
}

grpc::Status to_grpc(const Status& status) {
  return {static_cast<grpc::StatusCode>(status.code()), status.message()};
}

Status with_grpc_names(const Status& status, const std::string& prompt) {
  constexpr std::string_view ours = "prompt";
  const std::string& field = status.field();
  if (field == ours || field.starts_with("prompt[")) {
    return status.with_field(prompt + field.substr(ours.size()));
  }
  if (field == "response_format.schema") return status.with_field("response_format.json_schema");
  // OpenAI's calls have their function in an object of its own.
  constexpr std::string_view function = ".function";
  if (const auto at = field.find(function);
      at != std::string::npos && field.starts_with("messages")) {
    return status.with_field(std::string(field).erase(at, function.size()));
  }
  return status;
}

}  // namespace mobius
