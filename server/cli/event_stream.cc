#include "server/cli/event_stream.h"

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "server/json.h"

namespace mobius {
namespace {

using Json = nlohmann::json;

/// The member, or null: servers leave out, or write null, as they please.
const Json& member(const Json& object, const char* name) {
  static const Json null;
  if (!object.is_object()) return null;
  const auto found = object.find(name);
  return found != object.end() ? *found : null;
}

std::string text_of(const Json& value) {
  return value.is_string() ? value.get<std::string>() : std::string();
}

std::int64_t count_of(const Json& value) {
  return value.is_number() ? value.get<std::int64_t>() : 0;
}

double share_of(const Json& blocks) {
  const std::int64_t total = count_of(member(blocks, "total"));
  if (total <= 0) return -1;
  return static_cast<double>(count_of(member(blocks, "read"))) / static_cast<double>(total);
}

void read_extension(const Json& extension, AnswerEvent& event) {
  if (const Json& progress = member(extension, "progress"); progress.is_object()) {
    AnswerEvent::Progress read;
    read.total = count_of(member(progress, "total"));
    read.done = count_of(member(progress, "done"));
    const Json& left = member(progress, "seconds_left");
    if (left.is_number()) read.seconds_left = left.get<double>();
    event.progress = read;
  }
  event.prefill_share = share_of(member(extension, "prefill_blocks"));
  event.decode_share = share_of(member(extension, "decode_blocks"));
}

}  // namespace

void EventStream::feed(std::string_view piece,
                       const std::function<void(std::string_view)>& on_data) {
  const auto take = [&](std::string_view line) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.starts_with("data:")) return;
    line.remove_prefix(5);
    if (line.starts_with(' ')) line.remove_prefix(1);
    on_data(line);
  };
  std::size_t end = 0;
  while ((end = piece.find('\n')) != std::string_view::npos) {
    pending_.append(piece.substr(0, end));
    piece.remove_prefix(end + 1);
    const std::string line = std::exchange(pending_, {});
    take(line);
  }
  pending_.append(piece);
}

AnswerEvent read_answer_event(std::string_view data) {
  AnswerEvent event;
  if (data == "[DONE]") {
    event.done = true;
    return event;
  }
  const Json json = Json::parse(data, nullptr, false);
  if (json.is_discarded() || !json.is_object()) {
    throw std::runtime_error("an event of the answer is not a JSON object: " + brief_text(data));
  }
  if (!member(json, "error").is_null()) {
    event.error = error_message(data);
    return event;
  }
  if (const Json& choices = member(json, "choices"); choices.is_array()) {
    for (const Json& choice : choices) {
      if (count_of(member(choice, "index")) != 0) continue;
      const Json& delta = member(choice, "delta");
      // What a model thinks aloud, as vLLM and others name it, is time that a client sees too.
      event.text = text_of(member(delta, "reasoning_content")) + text_of(member(delta, "content")) +
                   text_of(member(choice, "text"));
      event.finish_reason = text_of(member(choice, "finish_reason"));
    }
  }
  if (const Json& usage = member(json, "usage"); usage.is_object()) {
    event.usage = AnswerEvent::Usage{
        count_of(member(usage, "prompt_tokens")),
        count_of(member(member(usage, "prompt_tokens_details"), "cached_tokens")),
        count_of(member(usage, "completion_tokens"))};
  }
  read_extension(member(json, "mobius"), event);
  return event;
}

std::string error_message(std::string_view body) {
  const Json json = Json::parse(body, nullptr, false);
  const Json& error = member(json, "error");
  for (const Json* found : {&member(error, "message"), &error, &member(json, "message")}) {
    if (found->is_string()) return brief_text(found->get<std::string>(), 500);
  }
  return body.empty() ? "no reason given" : brief_text(body, 300);
}

}  // namespace mobius
