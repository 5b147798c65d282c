#include "server/http/openai_response.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>

#include "server/http/answer_json.h"
#include "server/http/http_status.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

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

/// The id and the name come first, arguments as they are written.
Json call_chunk(const AnswerHead& head, std::size_t choice, const ToolCallDelta& call) {
  Json json = {{"index", call.index}};
  if (!call.name.empty()) {
    json["id"] = tool_call_id(head.id, choice, call.index);
    json["type"] = "function";
    json["function"]["name"] = call.name;
  }
  json["function"]["arguments"] = call.arguments;
  return json;
}

Json whole_call(const AnswerHead& head, std::size_t choice, const ToolCallDelta& call) {
  return {{"id", tool_call_id(head.id, choice, call.index)},
          {"type", "function"},
          {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
}

/// A choice of a stream's chunk.
Json chunk_choice(const AnswerHead& head, std::size_t index, const AnswerDelta& delta,
                  Json logprobs, Json finish_reason) {
  Json choice = {{"index", index}};
  if (head.chat) {
    Json shown = Json::object();
    if (!delta.content.empty()) shown["content"] = delta.content;
    for (const ToolCallDelta& call : delta.calls) {
      shown["tool_calls"].push_back(call_chunk(head, index, call));
    }
    choice["delta"] = std::move(shown);
  } else {
    choice["text"] = delta.content;
  }
  choice["logprobs"] = std::move(logprobs);
  choice["finish_reason"] = std::move(finish_reason);
  return choice;
}

/// An element of completions' `top_logprobs`: the `most` likely ones.
Json completion_top_logprobs(const Tokenizer& tokenizer, const SampledToken& sampled,
                             std::size_t most = SIZE_MAX) {
  Json top = Json::object();
  for (const TokenLogprob& other :
       std::span(sampled.top).first(std::min(most, sampled.top.size()))) {
    // Invalid bytes of different tokens may look the same; the most likely one keeps the name.
    const auto name = Json(tokenizer.bytes(other.token));
    const std::string shown = Json::parse(dump_answer(name)).get<std::string>();
    if (!top.contains(shown)) top[shown] = other.logprob;
  }
  return top;
}

/// Completions keep four lists of equal length.
struct CompletionLogprobs {
  Json text_offset = Json::array();
  Json token_logprobs = Json::array();
  Json tokens = Json::array();
  Json top_logprobs = Json::array();
};

/// Those of echoed tokens; their text goes to `text`.
CompletionLogprobs echo_logprobs(const AnswerHead& head, EchoText& echo, const PromptTokens& prompt,
                                 std::string& text) {
  CompletionLogprobs lists;
  for (std::size_t i = 0; i < prompt.tokens.size(); ++i) {
    const SampledToken& token = prompt.tokens[i];
    const std::size_t position = static_cast<std::size_t>(prompt.first) + i;
    lists.text_offset.push_back(echo.characters());
    lists.tokens.push_back(head.tokenizer->bytes(token.token));
    // Nothing comes before the first one.
    lists.token_logprobs.push_back(position == 0 ? Json() : Json(token.logprob));
    lists.top_logprobs.push_back(
        position == 0 ? Json()
                      : completion_top_logprobs(*head.tokenizer, token, *head.echo_logprobs));
    text += echo.push(token.token, position + 1 == static_cast<std::size_t>(prompt.total));
  }
  return lists;
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

/// What is said of one choice alone.
Json choice_extension(const AnswerHead& head, std::size_t choice, const Finish& finish) {
  Json json = {{"seed", seed_json(head, choice)}};
  if (!finish.stop_sequence.empty()) json["stop_sequence"] = finish.stop_sequence;
  return json;
}

std::string_view finish_reason(const Finish& finish, bool has_calls) {
  if (finish.reason == FinishReason::length) return "length";
  return has_calls ? "tool_calls" : "stop";
}

}  // namespace

std::string EchoText::push(std::int32_t token, bool last) {
  std::string text = detokenizer_.push(token);
  if (last) text += detokenizer_.finish();
  characters_ += count_characters(text);
  return text;
}

StreamWriter::StreamWriter(AnswerHead head)
    : head_(std::move(head)), choices_(begin_choices(head_)), total_(head_) {
  if (head_.echo_logprobs) echoes_.assign(choices_.size(), EchoText(*head_.tokenizer));
}

std::string StreamWriter::begin() {
  std::string events;
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    Json choice;
    if (head_.chat) {
      choice = {{"index", i},
                {"delta", {{"role", "assistant"}, {"content", ""}}},
                {"logprobs", nullptr},
                {"finish_reason", nullptr}};
    } else if (!head_.echo.empty() && !head_.echo_logprobs) {
      const std::string& prompt = head_.echo[i / head_.n];
      choices_[i].characters = count_characters(prompt);
      choice = chunk_choice(head_, i, {.content = prompt, .calls = {}}, nullptr, nullptr);
    } else {
      continue;
    }
    events += sse_event(dump_answer(chunk(head_, Json::array({std::move(choice)}))));
  }
  return events;
}

std::string StreamWriter::progress(std::size_t choice, const PrefillProgress& progress) const {
  Json json = chunk(head_, Json::array());
  Json& shown = json["mobius"]["progress"];
  if (choices_.size() > 1) shown["index"] = choice;
  shown["total"] = progress.total;
  shown["cached"] = progress.cached;
  shown["done"] = progress.done;
  shown["seconds_left"] = progress.seconds_left;
  return sse_event(dump_answer(json));
}

std::string StreamWriter::prompt(std::size_t choice, const PromptTokens& tokens) {
  if (!head_.echo_logprobs) return {};
  AnswerDelta shown;
  CompletionLogprobs lists = echo_logprobs(head_, echoes_[choice], tokens, shown.content);
  choices_[choice].characters = echoes_[choice].characters();
  Json logprobs = {{"text_offset", std::move(lists.text_offset)},
                   {"token_logprobs", std::move(lists.token_logprobs)},
                   {"tokens", std::move(lists.tokens)},
                   {"top_logprobs", std::move(lists.top_logprobs)}};
  return sse_event(dump_answer(chunk(
      head_, Json::array({chunk_choice(head_, choice, shown, std::move(logprobs), nullptr)}))));
}

std::string StreamWriter::token(std::size_t choice, const TokenDelta& delta) {
  ChoiceText& text = choices_[choice];
  const AnswerDelta shown = text.push(delta.token.token, delta.text);
  if (shown.empty() && !head_.logprobs) return {};
  Json logprobs = nullptr;
  if (head_.logprobs && head_.chat) {
    Json content = Json::array();
    content.push_back(token_logprobs(*head_.tokenizer, delta.token));
    logprobs = {{"content", std::move(content)}, {"refusal", nullptr}};
  } else if (head_.logprobs) {
    const auto list_of = [](Json element) { return Json::array({std::move(element)}); };
    logprobs = {{"text_offset", list_of(text.characters)},
                {"token_logprobs", list_of(delta.token.logprob)},
                {"tokens", list_of(head_.tokenizer->bytes(delta.token.token))},
                {"top_logprobs", list_of(completion_top_logprobs(*head_.tokenizer, delta.token))}};
  }
  text.characters += count_characters(shown.content);
  return sse_event(dump_answer(chunk(
      head_, Json::array({chunk_choice(head_, choice, shown, std::move(logprobs), nullptr)}))));
}

std::string StreamWriter::finish(std::size_t choice, const Finish& finish) {
  if (finish.reason == FinishReason::error) {
    ended_ = true;
    return sse_event(error_body(finish.status)).append(kSseDone);
  }
  total_.add(choice, finish);
  ended_ = total_.complete();
  std::string events;
  const auto event_of = [&](Json shown) { return chunk(head_, Json::array({std::move(shown)})); };
  if (const AnswerDelta rest = choices_[choice].finish(finish.text); !rest.empty()) {
    events += sse_event(dump_answer(event_of(chunk_choice(head_, choice, rest, nullptr, nullptr))));
  }
  Json last =
      chunk_choice(head_, choice, {}, nullptr, finish_reason(finish, choices_[choice].has_calls()));
  const bool alone = choices_.size() == 1;
  if (!alone) last["mobius"] = choice_extension(head_, choice, finish);
  Json event = event_of(std::move(last));
  if (ended_) {
    if (head_.include_usage) {
      events += sse_event(dump_answer(event));
      event = chunk(head_, Json::array());
      event["usage"] = usage(total_.usage);
    }
    event["mobius"] = answer_extension(head_, total_);
    if (alone && !finish.stop_sequence.empty()) {
      event["mobius"]["stop_sequence"] = finish.stop_sequence;
    }
  }
  events += sse_event(dump_answer(event));
  if (ended_) events += kSseDone;
  return events;
}

AnswerWriter::AnswerWriter(AnswerHead head) : head_(std::move(head)), total_(head_) {
  std::vector<ChoiceText> states = begin_choices(head_);
  choices_.resize(states.size());
  for (std::size_t i = 0; i < states.size(); ++i) {
    choices_[i].state = std::move(states[i]);
    if (head_.echo.empty()) continue;
    choices_[i].text = head_.echo[i / head_.n];
    choices_[i].state.characters = count_characters(choices_[i].text);
    if (head_.echo_logprobs) choices_[i].echo.emplace(*head_.tokenizer);
  }
}

void AnswerWriter::Gathered::add(AnswerDelta delta) {
  text += delta.content;
  state.characters += count_characters(delta.content);
  for (ToolCallDelta& call : delta.calls) {
    if (!call.name.empty()) {
      calls.push_back(std::move(call));
    } else {
      calls.back().arguments += call.arguments;
    }
  }
}

void AnswerWriter::prompt(std::size_t index, const PromptTokens& tokens) {
  Gathered& choice = choices_[index];
  if (head_.echo_logprobs) {
    std::string text;  // the choice has it already
    const CompletionLogprobs lists = echo_logprobs(head_, *choice.echo, tokens, text);
    for (std::size_t i = 0; i < tokens.tokens.size(); ++i) {
      append_element(choice.text_offset, lists.text_offset[i].dump());
      append_element(choice.token_logprobs, lists.token_logprobs[i].dump());
      append_element(choice.tokens, dump_answer(lists.tokens[i]));
      append_element(choice.top_logprobs, dump_answer(lists.top_logprobs[i]));
    }
  }
  if (!head_.prompt_logprobs) return;
  for (std::size_t i = 0; i < tokens.tokens.size(); ++i) {
    const bool first = tokens.first == 0 && i == 0;
    append_element(choice.prompt_logprobs,
                   first ? "null"
                         : dump_answer(prompt_logprob(*head_.tokenizer, tokens.tokens[i],
                                                      *head_.prompt_logprobs)));
  }
}

void AnswerWriter::token(std::size_t index, const TokenDelta& delta) {
  Gathered& choice = choices_[index];
  if (head_.logprobs && head_.chat) {
    append_element(choice.content, dump_answer(token_logprobs(*head_.tokenizer, delta.token)));
  } else if (head_.logprobs) {
    append_element(choice.text_offset, std::to_string(choice.state.characters));
    append_element(choice.token_logprobs, dump_answer(delta.token.logprob));
    append_element(choice.tokens, dump_answer(head_.tokenizer->bytes(delta.token.token)));
    append_element(choice.top_logprobs,
                   dump_answer(completion_top_logprobs(*head_.tokenizer, delta.token)));
  }
  choice.add(choice.state.push(delta.token.token, delta.text));
}

void AnswerWriter::finish(std::size_t index, const Finish& finish) {
  Gathered& choice = choices_[index];
  total_.add(index, finish);
  choice.add(choice.state.finish(finish.text));
  Json json = {{"index", index}};
  if (head_.chat) {
    Json message = {{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
    if (!choice.calls.empty()) {
      if (choice.text.empty()) message["content"] = nullptr;
      for (const ToolCallDelta& call : choice.calls) {
        message["tool_calls"].push_back(whole_call(head_, index, call));
      }
    }
    json["message"] = std::move(message);
  } else {
    json["text"] = choice.text;
  }
  json["finish_reason"] = finish_reason(finish, choice.state.has_calls());
  if (choices_.size() > 1) json["mobius"] = choice_extension(head_, index, finish);
  stop_sequence_ = finish.stop_sequence;
  choice.choice = dump_answer(json);
  append_member(choice.choice, "logprobs", logprobs(choice));
  // vLLM has it here in completions, and once in an answer to a chat, which has one prompt.
  if (head_.prompt_logprobs && !head_.chat) {
    append_member(choice.choice, "prompt_logprobs", '[' + choice.prompt_logprobs + ']');
  }
}

std::string AnswerWriter::logprobs(const Gathered& choice) const {
  if (!head_.logprobs) return "null";
  if (head_.chat) return "{\"content\":[" + choice.content + "],\"refusal\":null}";
  return "{\"text_offset\":[" + choice.text_offset + "],\"token_logprobs\":[" +
         choice.token_logprobs + "],\"tokens\":[" + choice.tokens + "],\"top_logprobs\":[" +
         choice.top_logprobs + "]}";
}

std::string AnswerWriter::text() const {
  std::string answer = dump_answer({{"id", head_.id},
                                    {"object", head_.chat ? "chat.completion" : "text_completion"},
                                    {"created", head_.created},
                                    {"model", head_.model}});
  std::string choices;
  for (const Gathered& choice : choices_) append_element(choices, choice.choice);
  append_member(answer, "choices", '[' + choices + ']');
  append_member(answer, "usage", dump_answer(usage(total_.usage)));
  if (head_.prompt_logprobs && head_.chat) {
    append_member(answer, "prompt_logprobs", '[' + choices_.front().prompt_logprobs + ']');
  }
  Json mobius = answer_extension(head_, total_);
  if (choices_.size() == 1 && !stop_sequence_.empty()) mobius["stop_sequence"] = stop_sequence_;
  append_member(answer, "mobius", dump_answer(mobius));
  return answer;
}

}  // namespace mobius
