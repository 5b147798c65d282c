#include "server/tools/tool_call_parser.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/tools/python_call.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kCodeTool = "code_interpreter";

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/// The value of a JSON string, if the text is one.
std::optional<std::string> json_string_value(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_string()) return std::nullopt;
  return json.get<std::string>();
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace

ToolCallParser::ToolCallParser(std::vector<std::string> names, bool several,
                               const Tokenizer& tokenizer)
    : names_(std::move(names)),
      several_(several),
      python_tag_(tokenizer.special("<|python_tag|>")) {}

AnswerDelta ToolCallParser::push(std::int32_t token, std::string_view text) {
  AnswerDelta out;
  if (token == python_tag_) meet_tag(out);
  if (state_ == State::content) {
    out.content += text;
  } else {
    for (const char c : text) take(c, out);
  }
  return out;
}

AnswerDelta ToolCallParser::finish(std::string_view text) {
  AnswerDelta out;
  for (const char c : text) take(c, out);
  if (state_ == State::code) {
    end_code(out);
  } else if (!begun_ && (state_ != State::between || calls_ == 0)) {
    out.content += held_;
  }
  held_.clear();
  return out;
}

void ToolCallParser::take(char c, AnswerDelta& out) {
  if (state_ == State::content) {
    out.content += c;
  } else if (state_ != State::dropped) {
    if (!begun_) held_ += c;
    step(c, out);
  }
}

void ToolCallParser::step(char c, AnswerDelta& out) {
  if (state_ == State::key) {
    if (c == '"' && !escaped_) {
      state_ = State::colon;
    } else {
      key_ += c;
    }
    escaped_ = c == '\\' && !escaped_;
    return;
  }
  if (state_ == State::value && value_begun_) return step_value(c, out);
  if (state_ == State::code || is_space(c)) return;
  switch (state_) {
    case State::between:
      if (c == '{') {
        state_ = State::member;
        first_ = true;
      } else if (calls_ == 0 || (c != ';' && c != ',')) {
        give_up(c, out);
      }
      break;
    case State::member:
      if (c == '"') {
        state_ = State::key;
        key_.clear();
        escaped_ = false;
      } else if (c == '}' && first_) {
        end_object(c, out);
      } else {
        give_up(c, out);
      }
      first_ = false;
      break;
    case State::colon:
      if (c != ':') return give_up(c, out);
      state_ = State::value;
      value_begun_ = false;
      break;
    case State::value: begin_value(c, out); break;
    case State::behind:
      if (c == ',') {
        state_ = State::member;
      } else if (c == '}') {
        end_object(c, out);
      } else {
        give_up(c, out);
      }
      break;
    default: break;
  }
}

void ToolCallParser::begin_value(char c, AnswerDelta& out) {
  key_ = json_string_value('"' + key_ + '"').value_or("");
  if (key_ == "function" && c == '{' && !wrapped_) {
    wrapped_ = true;
    first_ = true;
    state_ = State::member;
    return;
  }
  if (key_ == "parameters") key_ = "arguments";
  streaming_ = key_ == "arguments" && c == '{' && !has_arguments_;
  if (streaming_) has_arguments_ = true;
  if (streaming_ && !name_.empty()) begin_call(out);
  value_begun_ = true;
  scalar_ = c != '"' && c != '{' && c != '[';
  string_ = false;
  escaped_ = false;
  depth_ = 0;
  value_.clear();
  step_value(c, out);
}

void ToolCallParser::step_value(char c, AnswerDelta& out) {
  if (scalar_ && (is_space(c) || c == ',' || c == '}')) {
    end_value(c, out);
    if (state_ == State::behind) step(c, out);
    return;
  }
  if (!streaming_) {
    value_ += c;
  } else if (begun_) {
    if (out.calls.empty() || out.calls.back().index != calls_ - 1) {
      out.calls.push_back({calls_ - 1, {}, {}});
    }
    out.calls.back().arguments += c;
  } else {
    arguments_ += c;
  }
  if (string_) {
    string_ = c != '"' || escaped_;
    escaped_ = c == '\\' && !escaped_;
  } else if (c == '"') {
    string_ = true;
    return;
  } else if (c == '{' || c == '[') {
    ++depth_;
  } else if (depth_ > 0 && (c == '}' || c == ']')) {
    --depth_;
  }
  if (depth_ == 0 && !string_ && !scalar_) end_value(c, out);
}

void ToolCallParser::end_value(char c, AnswerDelta& out) {
  state_ = State::behind;
  if (std::exchange(streaming_, false)) return;
  if (key_ == "name" && name_.empty()) {
    name_ = json_string_value(value_).value_or("");
    if (!is_tool(name_)) return give_up(c, out);
    if (has_arguments_) begin_call(out);
  } else if (key_ == "arguments" && !has_arguments_) {
    // Some models write the arguments as a string that has them, or null where there are none.
    has_arguments_ = true;
    arguments_ = value_ == "null" ? "{}" : json_string_value(value_).value_or(value_);
    if (!name_.empty()) begin_call(out);
  }
}

void ToolCallParser::end_object(char c, AnswerDelta& out) {
  state_ = State::behind;
  if (std::exchange(wrapped_, false)) return;
  if (!begun_) {
    if (name_.empty()) return give_up(c, out);
    arguments_ = "{}";
    begin_call(out);
  }
  end_call();
}

void ToolCallParser::begin_call(AnswerDelta& out) {
  begun_ = true;
  held_.clear();
  out.calls.push_back({calls_++, name_, std::exchange(arguments_, {})});
}

void ToolCallParser::end_call() {
  begun_ = false;
  tagged_ = false;
  wrapped_ = false;
  has_arguments_ = false;
  name_.clear();
  arguments_.clear();
  held_.clear();
  state_ = several_ ? State::between : State::dropped;
}

/// This is no call, or what comes behind one is not.
void ToolCallParser::give_up(char c, AnswerDelta& out) {
  if (begun_) {
    end_call();
    if (state_ == State::dropped) return;
    held_ = c;
  }
  wrapped_ = false;
  has_arguments_ = false;
  name_.clear();
  arguments_.clear();
  if (tagged_) {
    state_ = State::code;
    return;
  }
  state_ = State::content;
  out.content += std::exchange(held_, {});
}

void ToolCallParser::meet_tag(AnswerDelta& out) {
  if (state_ == State::dropped) return;
  if (state_ == State::code) end_code(out);
  if (begun_) end_call();
  if (state_ == State::dropped) return;
  if (state_ != State::between || calls_ == 0) out.content += held_;
  end_call();
  state_ = State::between;
  tagged_ = true;
}

void ToolCallParser::end_code(AnswerDelta& out) {
  const std::string_view code = trimmed(held_);
  if (std::optional<PythonCall> call = parse_python_call(code); call && is_tool(call->name)) {
    name_ = std::move(call->name);
    arguments_ = std::move(call->arguments);
  } else if (is_tool(kCodeTool)) {
    name_ = kCodeTool;
    arguments_ = Json{{"code", code}}.dump(-1, ' ', false, Json::error_handler_t::replace);
  } else {
    out.content += std::exchange(held_, {});
    state_ = State::content;
    return;
  }
  begin_call(out);
  end_call();
}

bool ToolCallParser::is_tool(std::string_view name) const {
  return std::ranges::count(names_, name) > 0;
}

std::string tool_call_id(std::string_view answer_id, std::size_t choice, std::size_t index) {
  // "chatcmpl-<id>", "resp_<id>": what is behind the prefix is the answer's own.
  const std::size_t end = answer_id.find_last_of("-_");
  if (end != std::string_view::npos) answer_id.remove_prefix(end + 1);
  return "call_" + std::string(answer_id) + '_' + std::to_string(choice) + '_' +
         std::to_string(index);
}

}  // namespace mobius
