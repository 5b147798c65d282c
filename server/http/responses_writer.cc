#include "server/http/responses_writer.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "server/http/answer_json.h"
#include "server/http/http_status.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

/// A log-probability of a delta, as the final item has it but for the bytes.
Json without_bytes(Json entry) {
  entry.erase("bytes");
  for (Json& top : entry["top_logprobs"]) top.erase("bytes");
  return entry;
}

Json usage_json(const Usage& usage) {
  return {
      {"input_tokens", usage.prompt_tokens},
      {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}, {"cache_write_tokens", 0}}},
      {"output_tokens", usage.completion_tokens},
      {"output_tokens_details", {{"reasoning_tokens", 0}}},
      {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

}  // namespace

struct ResponsesWriter::Impl {
  /// One of the answer's items. The last one may be open.
  struct Item {
    bool call = false;
    std::string id;
    std::string text;  // or arguments
    std::string name;
    std::string call_id;
    Json logprobs = Json::array();
  };

  Impl(AnswerHead given, bool given_streamed)
      : head(std::move(given)),
        streamed(given_streamed),
        choice(std::move(begin_choices(head).front())),
        total(head) {
    answer = {{"id", head.id},           {"object", "response"},   {"created_at", head.created},
              {"status", "in_progress"}, {"error", nullptr},       {"incomplete_details", nullptr},
              {"model", head.model},     {"output", Json::array()}};
    answer.update(Json::parse(head.response_members));
    const std::size_t end = head.id.find_last_of("-_");
    own_id = end == std::string::npos ? head.id : head.id.substr(end + 1);
  }

  void emit(std::string_view type, Json members) {
    if (!streamed) return;
    Json event = {{"type", type}, {"sequence_number", sequence++}};
    event.update(members);
    out.append("event: ").append(type).append("\n").append(sse_event(dump_answer(event)));
  }

  std::size_t index() const { return items.size() - 1; }

  Json part_json(const Item& item) const {
    return {{"type", "output_text"},
            {"text", item.text},
            {"annotations", Json::array()},
            {"logprobs", item.logprobs}};
  }
  Json item_json(const Item& item, std::string_view status) const {
    if (item.call) {
      return {{"id", item.id},           {"type", "function_call"}, {"status", status},
              {"call_id", item.call_id}, {"name", item.name},       {"arguments", item.text}};
    }
    Json content = Json::array();
    if (status != "in_progress") content.push_back(part_json(item));
    return {{"id", item.id},
            {"type", "message"},
            {"role", "assistant"},
            {"status", status},
            {"content", std::move(content)}};
  }

  void open(Item item) {
    item.id = (item.call ? "fc_" : "msg_") + own_id + '_' + std::to_string(items.size());
    items.push_back(std::move(item));
    is_open = true;
    const Item& opened = items.back();
    emit("response.output_item.added",
         {{"output_index", index()}, {"item", item_json(opened, "in_progress")}});
    if (opened.call) return;
    emit("response.content_part.added", {{"item_id", opened.id},
                                         {"output_index", index()},
                                         {"content_index", 0},
                                         {"part", part_json(opened)}});
  }

  void close(std::string_view status) {
    if (!is_open) return;
    is_open = false;
    const Item& item = items.back();
    Json at = {{"item_id", item.id}, {"output_index", index()}};
    if (item.call) {
      at["name"] = item.name;
      at["arguments"] = item.text;
      emit("response.function_call_arguments.done", std::move(at));
    } else {
      at["content_index"] = 0;
      Json done = at;
      done["text"] = item.text;
      done["logprobs"] = Json::array();
      for (const Json& entry : item.logprobs) done["logprobs"].push_back(without_bytes(entry));
      emit("response.output_text.done", std::move(done));
      at["part"] = part_json(item);
      emit("response.content_part.done", std::move(at));
    }
    Json whole = item_json(item, status);
    emit("response.output_item.done", {{"output_index", index()}, {"item", whole}});
    answer["output"].push_back(std::move(whole));
  }

  /// Text, and the log-probabilities of the tokens that it took.
  void add_text(const std::string& text) {
    if (!is_open || items.back().call) {
      close("completed");
      open({});
    }
    Item& item = items.back();
    item.text += text;
    Json shown = Json::array();
    for (Json& entry : pending) {
      shown.push_back(without_bytes(entry));
      item.logprobs.push_back(std::move(entry));
    }
    pending.clear();
    emit("response.output_text.delta", {{"item_id", item.id},
                                        {"output_index", index()},
                                        {"content_index", 0},
                                        {"delta", text},
                                        {"logprobs", std::move(shown)}});
  }

  void add_call(const ToolCallDelta& delta) {
    if (!delta.name.empty()) {
      close("completed");
      Item item;
      item.call = true;
      item.name = delta.name;
      item.call_id = tool_call_id(head.id, 0, delta.index);
      open(std::move(item));
      pending.clear();  // a call has no place for them
    }
    if (delta.arguments.empty()) return;
    items.back().text += delta.arguments;
    emit("response.function_call_arguments.delta",
         {{"item_id", items.back().id}, {"output_index", index()}, {"delta", delta.arguments}});
  }

  void add(const AnswerDelta& delta, bool content_first) {
    if (content_first && !delta.content.empty()) add_text(delta.content);
    for (const ToolCallDelta& call : delta.calls) add_call(call);
    if (!content_first && !delta.content.empty()) add_text(delta.content);
  }

  void end(const Finish& finish) {
    const bool cut = finish.reason == FinishReason::length;
    if (items.empty()) open({});  // an answer has an item, be it an empty one
    close(cut ? "incomplete" : "completed");
    total.add(0, finish);
    answer["status"] = cut ? "incomplete" : "completed";
    if (cut) answer["incomplete_details"] = {{"reason", "max_output_tokens"}};
    answer["usage"] = usage_json(total.usage);
    answer["mobius"] = answer_extension(head, total);
    if (!finish.stop_sequence.empty()) answer["mobius"]["stop_sequence"] = finish.stop_sequence;
    emit(cut ? "response.incomplete" : "response.completed", {{"response", answer}});
  }

  void fail(const Finish& finish) {
    close("incomplete");
    answer["status"] = "failed";
    answer["error"] = {{"code", "server_error"}, {"message", finish.status.message()}};
    emit("response.failed", {{"response", answer}});
  }

  std::string take() { return std::exchange(out, {}); }

  AnswerHead head;
  bool streamed;
  ChoiceText choice;
  AnswerTotal total;
  Json answer;
  std::string own_id;
  std::vector<Item> items;
  bool is_open = false;
  bool ended = false;
  std::vector<Json> pending;  // log-probabilities of tokens whose text is held back
  std::size_t sequence = 0;
  std::string out;
};

ResponsesWriter::ResponsesWriter(AnswerHead head, bool streamed)
    : impl_(std::make_unique<Impl>(std::move(head), streamed)) {}
ResponsesWriter::~ResponsesWriter() = default;

std::string ResponsesWriter::begin() {
  impl_->emit("response.created", {{"response", impl_->answer}});
  impl_->emit("response.in_progress", {{"response", impl_->answer}});
  return impl_->take();
}

std::string ResponsesWriter::progress(std::size_t /*choice*/, const PrefillProgress& progress) {
  impl_->emit("mobius.progress", {{"total", progress.total},
                                  {"cached", progress.cached},
                                  {"done", progress.done},
                                  {"seconds_left", progress.seconds_left}});
  return impl_->take();
}

std::string ResponsesWriter::token(std::size_t /*choice*/, const TokenDelta& delta) {
  Impl& impl = *impl_;
  if (impl.head.logprobs) {
    impl.pending.push_back(token_logprobs(*impl.head.tokenizer, delta.token));
  }
  impl.add(impl.choice.push(delta.token.token, delta.text), !impl.choice.has_calls());
  return impl.take();
}

std::string ResponsesWriter::finish(std::size_t /*choice*/, const Finish& finish) {
  Impl& impl = *impl_;
  impl.ended = true;
  if (finish.reason == FinishReason::error) {
    impl.fail(finish);
  } else {
    impl.add(impl.choice.finish(finish.text), !impl.choice.has_calls());
    // Tokens that showed nothing, the end of the text among them.
    if (!impl.pending.empty() && impl.is_open && !impl.items.back().call) impl.add_text("");
    impl.end(finish);
  }
  return impl.take();
}

bool ResponsesWriter::ended() const {
  return impl_->ended;
}

std::string ResponsesWriter::text() const {
  return dump_answer(impl_->answer);
}

}  // namespace mobius
