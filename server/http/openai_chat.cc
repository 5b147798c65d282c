#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/http/json_fields.h"
#include "server/http/openai_request.h"
#include "server/json.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

/// A message's content: a string, or an array of text parts.
std::string read_content(JsonFields& fields, bool required) {
  const Json* content = fields.any("content");
  if (content == nullptr) {
    if (required) fields.fail("content", "is missing");
    return {};
  }
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) {
    fields.fail_type("content", *content, "a string or an array of text parts");
    return {};
  }
  std::string text;
  for (std::size_t i = 0; i < content->size(); ++i) {
    const Json& part = (*content)[i];
    const std::string name = "content[" + std::to_string(i) + "]";
    if (type_of(part) != "text") {
      fields.fail(name, "is " + of_type(part) +
                            "; must be a part of type \"text\": this server reads text only");
      return {};
    }
    if (!part.contains("text") || !part["text"].is_string()) {
      fields.fail(name + ".text", "is missing or not a string");
      return {};
    }
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

void read_tool_calls(JsonFields& parent, ChatMessage& message, Status& status) {
  const Json* calls = parent.array("tool_calls");
  if (calls == nullptr) return;
  for (std::size_t i = 0; i < calls->size(); ++i) {
    const std::string name = "tool_calls[" + std::to_string(i) + "]";
    if (!(*calls)[i].is_object()) {
      parent.fail_type(name, (*calls)[i], "an object");
      return;
    }
    JsonFields call((*calls)[i], parent.path(name), status);
    const auto id = call.string("id");
    call.any("type");
    const Json* function = call.object("function");
    if (function == nullptr) {
      call.fail("function", "is missing");
      return;
    }
    JsonFields fields(*function, call.path("function"), status);
    const auto function_name = fields.string("name");
    const auto arguments = fields.string("arguments");
    if (!function_name.has_value()) fields.fail("name", "is missing");
    message.tool_calls.push_back(
        {id.value_or(""), function_name.value_or(""), arguments.value_or("{}")});
  }
}

void read_messages(JsonFields& parent, ChatInput& input, Status& status) {
  const Json* messages = parent.array("messages");
  if (messages == nullptr || messages->empty()) {
    parent.fail("messages", "is missing or empty; must have at least one message");
    return;
  }
  input.messages.reserve(messages->size());
  for (std::size_t i = 0; i < messages->size() && status.ok(); ++i) {
    const std::string name = "messages[" + std::to_string(i) + "]";
    if (!(*messages)[i].is_object()) {
      parent.fail_type(name, (*messages)[i], "an object");
      return;
    }
    JsonFields fields((*messages)[i], name, status);
    ChatMessage message;
    const auto role = fields.string("role");
    if (!role.has_value()) fields.fail("role", "is missing");
    const std::string role_name = role.value_or("");
    const auto known = chat_role_named(role_name);
    if (!known.has_value()) {
      fields.fail("role", "is \"" + brief_text(role_name) +
                              "\"; must be system, developer, user, assistant or tool");
    }
    message.role = known.value_or(ChatRole::user);
    read_tool_calls(fields, message, status);
    if (!message.tool_calls.empty() && message.role != ChatRole::assistant) {
      fields.fail("tool_calls", "is set on a message of role \"" + role_name +
                                    "\"; only an assistant's message may have it");
    }
    message.content = read_content(fields, message.tool_calls.empty());
    message.tool_call_id = fields.string("tool_call_id").value_or("");
    for (const char* ignored : {"name", "refusal", "annotations"}) {
      fields.any(ignored);
    }
    for (const char* refused : {"audio", "function_call"}) {
      if (fields.any(refused) != nullptr) fields.fail(refused, "is not supported");
    }
    fields.refuse_unread();
    input.messages.push_back(std::move(message));
  }
}

/// The name in {"type": "function", "function": {"name": ...}}.
std::optional<std::string> function_name(const Json& value) {
  if (type_of(value) != "function") return std::nullopt;
  const auto function = value.find("function");
  if (function == value.end() || !function->is_object()) return std::nullopt;
  const auto name = function->find("name");
  if (name == function->end() || !name->is_string()) return std::nullopt;
  return name->get<std::string>();
}

/// Leaves those of the tools that {"mode": ..., "tools": [...]} names.
void keep_allowed(JsonFields& parent, ChatInput& input, Status& status) {
  const Json* object = parent.object("allowed_tools");
  if (object == nullptr) {
    parent.fail("allowed_tools", "is missing");
    return;
  }
  JsonFields fields(*object, parent.path("allowed_tools"), status);
  const std::string mode = fields.string("mode").value_or("");
  if (mode == "required") {
    input.tool_choice.kind = ToolChoice::Kind::required;
  } else if (mode != "auto") {
    fields.fail("mode", "is \"" + brief_text(mode) + "\"; must be \"auto\" or \"required\"");
  }
  const Json* allowed = fields.array("tools");
  if (allowed == nullptr) fields.fail("tools", "is missing");
  fields.refuse_unread();
  if (!status.ok()) return;
  std::vector<std::string> kept;
  for (std::size_t i = 0; i < allowed->size(); ++i) {
    const auto name = function_name((*allowed)[i]);
    const auto found = std::ranges::find_if(input.tools_json, [&](const std::string& tool) {
      return name.has_value() && function_name(Json::parse(tool)) == name;
    });
    if (found == input.tools_json.end()) {
      fields.fail("tools[" + std::to_string(i) + "]", "names none of the functions in \"tools\"");
      return;
    }
    kept.push_back(*found);
  }
  input.tools_json = std::move(kept);
}

void read_tool_choice(JsonFields& parent, ChatInput& input, Status& status) {
  const Json* choice = parent.any("tool_choice");
  if (choice == nullptr || *choice == "auto") return;
  if (*choice == "none") {
    input.tool_choice.kind = ToolChoice::Kind::none;
  } else if (*choice == "required") {
    input.tool_choice.kind = ToolChoice::Kind::required;
  } else if (auto name = function_name(*choice)) {
    input.tool_choice = {ToolChoice::Kind::named, std::move(*name)};
  } else if (type_of(*choice) == "allowed_tools") {
    JsonFields fields(*choice, parent.path("tool_choice"), status);
    fields.any("type");
    keep_allowed(fields, input, status);
    fields.refuse_unread();
  } else {
    parent.fail("tool_choice", "is " + brief(*choice) +
                                   "; must be \"none\", \"auto\", \"required\", {\"type\": "
                                   "\"function\", \"function\": {\"name\": ...}} or {\"type\": "
                                   "\"allowed_tools\", ...}");
  }
}

void read_tools(JsonFields& fields, ChatInput& input, Status& status) {
  if (const Json* tools = fields.array("tools")) {
    for (std::size_t i = 0; i < tools->size(); ++i) {
      const std::string name = "tools[" + std::to_string(i) + "]";
      const Json& tool = (*tools)[i];
      if (type_of(tool) != "function") {
        fields.fail(name, "is " + of_type(tool) + "; must be of type \"function\"");
        return;
      }
      if (!tool.contains("function") || !tool["function"].is_object()) {
        fields.fail(name + ".function", "is missing or not an object");
        return;
      }
      input.tools_json.push_back(tool.dump());
    }
  }
  read_tool_choice(fields, input, status);
  input.parallel_tool_calls = fields.boolean("parallel_tool_calls").value_or(true);
}

}  // namespace

void read_chat_prompt(JsonFields& fields, ChatInput& input, Status& status) {
  read_messages(fields, input, status);
  read_tools(fields, input, status);
}

}  // namespace mobius
