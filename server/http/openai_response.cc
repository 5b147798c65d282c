#include "server/http/openai_response.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "server/http/http_status.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

/// A token's bytes need not be valid UTF-8; where they are shown as text, U+FFFD stands in.
std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::size_t count_characters(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
  }));
}

double milliseconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

Json chunk(const AnswerHead& head, Json choices) {
  Json json = {{"id", head.id},
               {"object", head.chat ? "chat.completion.chunk" : "text_completion"},
               {"created", head.created},
               {"model", head.model},
               {"choices", std::move(choices)}};
  // Asked for, the member is in every chunk; the last one fills it.
  if (head.include_usage) json["usage"] = nullptr;
  return json;
}

/// A choice of a stream's chunk.
Json chunk_choice(const AnswerHead& head, std::string_view text, Json logprobs,
                  Json finish_reason) {
  Json choice = {{"index", 0}};
  if (head.chat) {
    choice["delta"] = text.empty() ? Json::object() : Json{{"content", text}};
  } else {
    choice["text"] = text;
  }
  choice["logprobs"] = std::move(logprobs);
  choice["finish_reason"] = std::move(finish_reason);
  return choice;
}

Json chat_logprob(const Tokenizer& tokenizer, std::int32_t token, float logprob) {
  const std::string_view bytes = tokenizer.bytes(token);
  Json numbers = Json::array();
  for (const char c : bytes) numbers.push_back(static_cast<unsigned char>(c));
  return {{"token", bytes}, {"logprob", logprob}, {"bytes", std::move(numbers)}};
}

void add_chat_logprobs(const Tokenizer& tokenizer, const SampledToken& sampled, Json& content) {
  Json entry = chat_logprob(tokenizer, sampled.token, sampled.logprob);
  Json top = Json::array();
  for (const TokenLogprob& other : sampled.top) {
    top.push_back(chat_logprob(tokenizer, other.token, other.logprob));
  }
  entry["top_logprobs"] = std::move(top);
  content.push_back(std::move(entry));
}

/// Completions keep four lists of equal length.
Json completion_logprobs() {
  return {{"text_offset", Json::array()},
          {"token_logprobs", Json::array()},
          {"tokens", Json::array()},
          {"top_logprobs", Json::array()}};
}

void add_completion_logprobs(const Tokenizer& tokenizer, const SampledToken& sampled,
                             std::size_t text_offset, Json& lists) {
  Json top = Json::object();
  for (const TokenLogprob& other : sampled.top) {
    // Invalid bytes of different tokens may look the same; the most likely one keeps the name.
    const auto name = Json(tokenizer.bytes(other.token));
    const std::string shown = Json::parse(dump(name)).get<std::string>();
    if (!top.contains(shown)) top[shown] = other.logprob;
  }
  lists["text_offset"].push_back(text_offset);
  lists["token_logprobs"].push_back(sampled.logprob);
  lists["tokens"].push_back(tokenizer.bytes(sampled.token));
  lists["top_logprobs"].push_back(std::move(top));
}

Json usage(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

Json block_reads(const BlockReads& reads) {
  return {{"read", reads.read}, {"total", reads.total}};
}

/// The extension object of a finished answer.
Json extension(const AnswerHead& head, const Finish& finish) {
  Json result = {{"seed", head.seed},
                 {"queued_ms", milliseconds(finish.timing.queued)},
                 {"ttft_ms", milliseconds(finish.timing.first_token)},
                 {"total_ms", milliseconds(finish.timing.total)},
                 {"prefill_blocks", block_reads(finish.prefill_reads)},
                 {"decode_blocks", block_reads(finish.decode_reads)}};
  if (!finish.stop_sequence.empty()) result["stop_sequence"] = finish.stop_sequence;
  return result;
}

std::string_view finish_reason(const Finish& finish) {
  return finish.reason == FinishReason::length ? "length" : "stop";
}

}  // namespace

std::string sse_event(std::string_view json) {
  std::string event = "data: ";
  event.append(json).append("\n\n");
  return event;
}

std::string StreamWriter::begin() const {
  if (!head_.chat) return {};
  const Json choice = {{"index", 0},
                       {"delta", {{"role", "assistant"}, {"content", ""}}},
                       {"logprobs", nullptr},
                       {"finish_reason", nullptr}};
  return sse_event(dump(chunk(head_, Json::array({choice}))));
}

std::string StreamWriter::progress(const PrefillProgress& progress) const {
  Json json = chunk(head_, Json::array());
  json["mobius"]["progress"] = {
      {"total", progress.total}, {"cached", progress.cached}, {"done", progress.done}};
  return sse_event(dump(json));
}

std::string StreamWriter::token(const TokenDelta& delta) {
  if (delta.text.empty() && !head_.logprobs) return {};
  Json logprobs = nullptr;
  if (head_.logprobs && head_.chat) {
    logprobs = {{"content", Json::array()}, {"refusal", nullptr}};
    add_chat_logprobs(*head_.tokenizer, delta.token, logprobs["content"]);
  } else if (head_.logprobs) {
    logprobs = completion_logprobs();
    add_completion_logprobs(*head_.tokenizer, delta.token, characters_, logprobs);
  }
  characters_ += count_characters(delta.text);
  const Json choice = chunk_choice(head_, delta.text, std::move(logprobs), nullptr);
  return sse_event(dump(chunk(head_, Json::array({choice}))));
}

std::string StreamWriter::finish(const Finish& finish) const {
  if (finish.reason == FinishReason::error) {
    return sse_event(error_body(finish.status)).append(kSseDone);
  }
  std::string events;
  if (!finish.text.empty()) {
    const Json rest = chunk_choice(head_, finish.text, nullptr, nullptr);
    events += sse_event(dump(chunk(head_, Json::array({rest}))));
  }
  Json last = chunk(head_, Json::array({chunk_choice(head_, "", nullptr, finish_reason(finish))}));
  if (head_.include_usage) {
    events += sse_event(dump(last));
    last = chunk(head_, Json::array());
    last["usage"] = usage(finish.usage);
  }
  last["mobius"] = extension(head_, finish);
  events += sse_event(dump(last));
  return events.append(kSseDone);
}

std::string whole_answer(const AnswerHead& head, const std::vector<TokenDelta>& tokens,
                         const Finish& finish) {
  std::string text;
  Json chat_content = Json::array();
  Json lists = completion_logprobs();
  std::size_t characters = 0;
  for (const TokenDelta& delta : tokens) {
    if (head.logprobs && head.chat) {
      add_chat_logprobs(*head.tokenizer, delta.token, chat_content);
    } else if (head.logprobs) {
      add_completion_logprobs(*head.tokenizer, delta.token, characters, lists);
    }
    text += delta.text;
    characters += count_characters(delta.text);
  }
  text += finish.text;

  Json choice = {{"index", 0}};
  if (head.chat) {
    choice["message"] = {{"role", "assistant"}, {"content", text}, {"refusal", nullptr}};
    choice["logprobs"] = head.logprobs
                             ? Json{{"content", std::move(chat_content)}, {"refusal", nullptr}}
                             : Json(nullptr);
  } else {
    choice["text"] = text;
    choice["logprobs"] = head.logprobs ? std::move(lists) : Json(nullptr);
  }
  choice["finish_reason"] = finish_reason(finish);

  const Json answer = {{"id", head.id},
                       {"object", head.chat ? "chat.completion" : "text_completion"},
                       {"created", head.created},
                       {"model", head.model},
                       {"choices", Json::array({choice})},
                       {"usage", usage(finish.usage)},
                       {"mobius", extension(head, finish)}};
  return dump(answer);
}

}  // namespace mobius
