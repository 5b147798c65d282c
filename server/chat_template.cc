#include "server/chat_template.h"

#include <algorithm>
#include <array>
#include <utility>

#include "engine/tokenizer/utf8.h"
#include "engine/validate.h"
#include "server/python_json.h"

namespace mobius {
namespace {

constexpr std::string_view kSystemIntro = "Cutting Knowledge Date: December 2023\nToday Date: ";
constexpr std::string_view kSystemToolsIntro =
    "You have access to the following functions. To call a function, please respond with JSON for "
    "a function call.";
constexpr std::string_view kUserToolsIntro =
    "Given the following functions, please respond with a JSON for a function call with its proper "
    "arguments that best answers the given prompt.\n\n";
constexpr std::string_view kToolsFormat =
    "Respond in the format {\"name\": function name, \"parameters\": dictionary of argument name "
    "and its value}.Do not use variables.\n\n";

/// The header's name of each ChatRole. Llama knows tool results as output of its interpreter.
constexpr std::array<std::string_view, 4> kHeaders = {"system", "user", "assistant", "ipython"};

/// What Python's str.strip() strips: White_Space and the four separators U+001C to U+001F.
bool is_python_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

std::string_view trim(std::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = utf8_step(text);
    if (step.kind != Utf8Step::Kind::valid || !is_python_space(step.code_point)) break;
    text.remove_prefix(step.length);
  }
  while (!text.empty()) {
    std::size_t begin = text.size() - 1;  // of the last character: all spaces have 1 to 3 bytes
    while (begin > 0 && text.size() - begin < 3 && (text[begin] & 0xC0) == 0x80) --begin;
    const Utf8Step step = utf8_step(text.substr(begin));
    if (step.kind != Utf8Step::Kind::valid || begin + step.length != text.size() ||
        !is_python_space(step.code_point)) {
      break;
    }
    text.remove_suffix(step.length);
  }
  return text;
}

/// Collects a prompt. Text between two control tokens is encoded in one go, since a piece of the
/// tokenizer may reach from the template's own text into the message's.
class Prompt {
 public:
  struct Controls {
    std::int32_t begin_of_text;
    std::int32_t start_header;
    std::int32_t end_header;
    std::int32_t end_of_turn;
  };

  Prompt(const Tokenizer& tokenizer, const Controls& controls, std::int32_t max_context)
      : tokenizer_(tokenizer), controls_(controls), max_context_(max_context) {
    control(controls.begin_of_text);
  }

  void header(ChatRole role) {
    control(controls_.start_header);
    text(kHeaders[static_cast<std::size_t>(role)]);
    control(controls_.end_header);
    text("\n\n");
  }
  void text(std::string_view part) { text_ += part; }
  void end_turn() { control(controls_.end_of_turn); }
  StatusOr<std::vector<std::int32_t>> finish() {
    flush();
    if (too_long()) return prompt_too_long(length_, false, max_context_);
    return std::move(ids_);
  }

 private:
  bool too_long() const { return length_ >= static_cast<std::size_t>(max_context_); }
  void control(std::int32_t id) {
    flush();
    ids_.push_back(id);
  }
  void flush() {
    if (!too_long()) {
      length_ = tokenizer_.encode(text_, ids_, static_cast<std::size_t>(max_context_) - 1);
    }
    text_.clear();
  }

  const Tokenizer& tokenizer_;
  Controls controls_;
  std::string text_;
  std::vector<std::int32_t> ids_;
  std::int32_t max_context_;
  std::size_t length_ = 0;  // of ids_; once too long, what it would have at least
};

StatusOr<Prompt::Controls> find_controls(const Tokenizer& tokenizer) {
  constexpr std::array<std::string_view, 4> kNames = {"<|begin_of_text|>", "<|start_header_id|>",
                                                      "<|end_header_id|>", "<|eot_id|>"};
  std::array<std::int32_t, kNames.size()> ids{};
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    const std::optional<std::int32_t> id = tokenizer.special(kNames[i]);
    if (!id) {
      return Status(StatusCode::failed_precondition,
                    "the model has no chat template: its vocabulary lacks Llama 3's token " +
                        std::string(kNames[i]));
    }
    ids[i] = *id;
  }
  return Prompt::Controls{ids[0], ids[1], ids[2], ids[3]};
}

std::string at(std::string_view list, std::size_t index) {
  return std::string(list) + "[" + std::to_string(index) + "]";
}

Status check_messages(std::span<const ChatMessage> messages) {
  if (messages.empty()) return Status::invalid("messages", "messages must not be empty");
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.tool_calls.empty()) continue;
    const std::string field = at("messages", i) + ".tool_calls";
    if (message.role != ChatRole::assistant) {
      return Status::invalid(field, field + " is for messages of the assistant only");
    }
  }
  return {};
}

/// Names the field in an error of python_json_object.
StatusOr<std::string> json_of_field(const std::string& field, std::string_view json, int indent) {
  StatusOr<std::string> text = python_json_object(json, indent);
  if (!text.ok()) return Status::invalid(field, field + " " + text.status().message());
  return text;
}

StatusOr<std::string> write_tools(std::span<const std::string> tools_json) {
  std::string out(kToolsFormat);
  for (std::size_t i = 0; i < tools_json.size(); ++i) {
    StatusOr<std::string> tool = json_of_field(at("tools", i), tools_json[i], 4);
    if (!tool.ok()) return tool;
    out += tool.value();
    out += "\n\n";
  }
  return out;
}

Status write_call(Prompt& prompt, const ChatToolCall& call, const std::string& field) {
  const StatusOr<std::string> arguments = json_of_field(
      field + ".function.arguments", call.arguments.empty() ? "{}" : call.arguments, 0);
  if (!arguments.ok()) return arguments.status();
  prompt.header(ChatRole::assistant);
  prompt.text("{\"name\": \"" + call.name + "\", \"parameters\": " + arguments.value() + "}");
  prompt.end_turn();
  return {};
}

void write_result(Prompt& prompt, const ChatMessage& message) {
  prompt.header(ChatRole::tool);
  // The official template asks whether the content is iterable, which a string is: even plain text
  // is shown as JSON.
  prompt.text(python_json_string(message.content));
  prompt.end_turn();
}

/// The calls of the message at `next` and the results behind it, each call before its result: the
/// model knows no other order. Moves `next` behind them.
Status write_calls(Prompt& prompt, std::span<const ChatMessage> messages, std::size_t& next) {
  const ChatMessage& message = messages[next];
  const std::string field = at("messages", next) + ".tool_calls";
  std::vector<const ChatMessage*> results;
  for (++next; next < messages.size() && messages[next].role == ChatRole::tool; ++next) {
    results.push_back(&messages[next]);
  }
  for (std::size_t i = 0; i < message.tool_calls.size(); ++i) {
    const ChatToolCall& call = message.tool_calls[i];
    if (Status status = write_call(prompt, call, at(field, i)); !status.ok()) return status;
    const auto result = std::ranges::find(results, call.id, &ChatMessage::tool_call_id);
    if (result == results.end()) continue;
    write_result(prompt, **result);
    results.erase(result);
  }
  for (const ChatMessage* result : results) write_result(prompt, *result);
  return {};
}

}  // namespace

std::optional<ChatRole> chat_role_named(std::string_view name) {
  // "developer" is OpenAI's newer name for it.
  if (name == "system" || name == "developer") return ChatRole::system;
  if (name == "user") return ChatRole::user;
  if (name == "assistant") return ChatRole::assistant;
  if (name == "tool") return ChatRole::tool;
  return std::nullopt;
}

StatusOr<std::vector<std::int32_t>> render_chat(const Tokenizer& tokenizer,
                                                std::span<const ChatMessage> messages,
                                                std::span<const std::string> tools_json,
                                                const ChatTemplateOptions& options) {
  if (const Status status = check_messages(messages); !status.ok()) return status;
  const StatusOr<Prompt::Controls> controls = find_controls(tokenizer);
  if (!controls.ok()) return controls.status();
  const bool has_tools = !tools_json.empty();
  std::string tools;
  if (has_tools) {
    StatusOr<std::string> written = write_tools(tools_json);
    if (!written.ok()) return written.status();
    tools = std::move(written).value();
  }

  Prompt prompt(tokenizer, controls.value(), options.max_context);
  std::size_t next = 0;

  prompt.header(ChatRole::system);
  if (has_tools) prompt.text("Environment: ipython\n");
  prompt.text(kSystemIntro);
  prompt.text(options.date_string);
  prompt.text("\n\n");
  if (has_tools && !options.tools_in_user_message) {
    prompt.text(kSystemToolsIntro);
    prompt.text(tools);
  }
  if (messages[0].role == ChatRole::system) prompt.text(trim(messages[next++].content));
  prompt.end_turn();

  if (has_tools && options.tools_in_user_message) {
    if (next == messages.size()) {
      return Status::invalid("messages", "messages must have a user message, which carries tools");
    }
    if (!messages[next].tool_calls.empty()) {
      return Status::invalid(at("messages", next),
                             at("messages", next) + " must be a user message, which carries tools");
    }
    prompt.header(ChatRole::user);
    prompt.text(kUserToolsIntro);
    prompt.text(tools);
    prompt.text(trim(messages[next++].content));
    prompt.end_turn();
  }

  while (next < messages.size()) {
    const ChatMessage& message = messages[next];
    if (!message.tool_calls.empty()) {
      if (Status status = write_calls(prompt, messages, next); !status.ok()) return status;
      continue;
    }
    if (message.role == ChatRole::tool) {
      write_result(prompt, message);
    } else {
      prompt.header(message.role);
      prompt.text(trim(message.content));
      prompt.end_turn();
    }
    ++next;
  }
  if (options.add_generation_prompt) prompt.header(ChatRole::assistant);
  return prompt.finish();
}

}  // namespace mobius
