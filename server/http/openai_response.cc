#include "server/http/openai_response.h"

#include <algorithm>
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

/// An element of `logprobs.content`.
Json chat_logprobs(const Tokenizer& tokenizer, const SampledToken& sampled) {
  Json entry = chat_logprob(tokenizer, sampled.token, sampled.logprob);
  Json top = Json::array();
  for (const TokenLogprob& other : sampled.top) {
    top.push_back(chat_logprob(tokenizer, other.token, other.logprob));
  }
  entry["top_logprobs"] = std::move(top);
  return entry;
}

/// An element of completions' `top_logprobs`.
Json completion_top_logprobs(const Tokenizer& tokenizer, const SampledToken& sampled) {
  Json top = Json::object();
  for (const TokenLogprob& other : sampled.top) {
    // Invalid bytes of different tokens may look the same; the most likely one keeps the name.
    const auto name = Json(tokenizer.bytes(other.token));
    const std::string shown = Json::parse(dump(name)).get<std::string>();
    if (!top.contains(shown)) top[shown] = other.logprob;
  }
  return top;
}

void append_element(std::string& list, std::string_view json) {
  if (!list.empty()) list += ',';
  list += json;
}

/// `object` is the text of a JSON object that has members.
void append_member(std::string& object, std::string_view name, std::string_view json) {
  object.pop_back();
  object.append(",\"").append(name).append("\":").append(json).append("}");
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
  json["mobius"]["progress"] = {{"total", progress.total},
                                {"cached", progress.cached},
                                {"done", progress.done},
                                {"seconds_left", progress.seconds_left}};
  return sse_event(dump(json));
}

std::string StreamWriter::token(const TokenDelta& delta) {
  if (delta.text.empty() && !head_.logprobs) return {};
  Json logprobs = nullptr;
  if (head_.logprobs && head_.chat) {
    Json content = Json::array();
    content.push_back(chat_logprobs(*head_.tokenizer, delta.token));
    logprobs = {{"content", std::move(content)}, {"refusal", nullptr}};
  } else if (head_.logprobs) {
    const auto list_of = [](Json element) { return Json::array({std::move(element)}); };
    // Completions keep four lists of equal length.
    logprobs = {{"text_offset", list_of(characters_)},
                {"token_logprobs", list_of(delta.token.logprob)},
                {"tokens", list_of(head_.tokenizer->bytes(delta.token.token))},
                {"top_logprobs", list_of(completion_top_logprobs(*head_.tokenizer, delta.token))}};
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

void AnswerWriter::token(const TokenDelta& delta) {
  if (head_.logprobs && head_.chat) {
    append_element(content_, dump(chat_logprobs(*head_.tokenizer, delta.token)));
  } else if (head_.logprobs) {
    append_element(text_offset_, std::to_string(characters_));
    append_element(token_logprobs_, dump(delta.token.logprob));
    append_element(tokens_, dump(head_.tokenizer->bytes(delta.token.token)));
    append_element(top_logprobs_, dump(completion_top_logprobs(*head_.tokenizer, delta.token)));
  }
  text_ += delta.text;
  characters_ += count_characters(delta.text);
}

std::string AnswerWriter::finish(const Finish& finish) {
  text_ += finish.text;
  Json choice = {{"index", 0}};
  if (head_.chat) {
    choice["message"] = {{"role", "assistant"}, {"content", text_}, {"refusal", nullptr}};
  } else {
    choice["text"] = text_;
  }
  choice["finish_reason"] = finish_reason(finish);
  std::string choice_text = dump(choice);

  std::string logprobs = "null";
  if (head_.logprobs && head_.chat) {
    logprobs = "{\"content\":[" + content_ + "],\"refusal\":null}";
  } else if (head_.logprobs) {
    logprobs = "{\"text_offset\":[" + text_offset_ + "],\"token_logprobs\":[" + token_logprobs_ +
               "],\"tokens\":[" + tokens_ + "],\"top_logprobs\":[" + top_logprobs_ + "]}";
  }
  append_member(choice_text, "logprobs", logprobs);

  std::string answer = dump({{"id", head_.id},
                             {"object", head_.chat ? "chat.completion" : "text_completion"},
                             {"created", head_.created},
                             {"model", head_.model}});
  append_member(answer, "choices", '[' + choice_text + ']');
  append_member(answer, "usage", dump(usage(finish.usage)));
  append_member(answer, "mobius", dump(extension(head_, finish)));
  return answer;
}

}  // namespace mobius
