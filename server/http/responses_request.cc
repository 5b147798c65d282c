#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/http/generation_fields.h"
#include "server/http/json_fields.h"
#include "server/http/openai_request.h"
#include "server/json.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

/// Members that change nothing about the answer here. Nothing is stored.
constexpr auto kIgnored = std::to_array<std::string_view>({
    "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention",
    "max_tool_calls",  // of tools that a server runs itself
});

/// Members that would change the answer.
constexpr auto kNeutral = std::to_array<NeutralMember>({
    {"background", "false"},
    {"context_management", "null"},
    {"conversation", "null"},
    {"moderation", "null"},
    {"previous_response_id", "null"},
    {"prompt", "null"},
    {"reasoning", R"({"effort":"none"})"},
    {"truncation", "\"disabled\""},
});

/// Text: a string, or an array of parts that are text.
std::string read_text(JsonFields& fields, std::string_view name) {
  const Json* content = fields.any(name);
  if (content == nullptr) {
    fields.fail(name, "is missing");
    return {};
  }
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) {
    fields.fail_type(name, *content, "a string or an array of text parts");
    return {};
  }
  std::string text;
  for (std::size_t i = 0; i < content->size(); ++i) {
    const Json& part = (*content)[i];
    const std::string at = std::string(name) + "[" + std::to_string(i) + "]";
    const Json type = type_of(part);
    if (type != "input_text" && type != "output_text") {
      fields.fail(at, "is " + of_type(part) +
                          "; must be a part of type \"input_text\" or \"output_text\": this server "
                          "reads text only");
      return {};
    }
    if (!part.contains("text") || !part["text"].is_string()) {
      fields.fail(at + ".text", "is missing or not a string");
      return {};
    }
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

ChatMessage read_message(JsonFields& fields) {
  ChatMessage message;
  const std::string name = fields.string("role").value_or("");
  const auto role = chat_role_named(name);
  if (!role.has_value() || *role == ChatRole::tool) {
    fields.fail("role",
                "is \"" + brief_text(name) + "\"; must be system, developer, user or assistant");
  }
  message.role = role.value_or(ChatRole::user);
  message.content = read_text(fields, "content");
  for (const char* ignored : {"id", "status", "phase"}) fields.any(ignored);
  return message;
}

std::string read_required(JsonFields& fields, std::string_view name) {
  auto value = fields.string(name);
  if (!value.has_value()) fields.fail(name, "is missing");
  return std::move(value).value_or("");
}

bool has_call(const std::vector<ChatMessage>& messages, const std::string& id) {
  return std::ranges::any_of(messages, [&](const ChatMessage& message) {
    return std::ranges::count(message.tool_calls, id, &ChatToolCall::id) > 0;
  });
}

/// An element of `input`. Calls that come together are one message's.
void read_item(JsonFields& fields, std::vector<ChatMessage>& messages) {
  const std::string type = fields.string("type").value_or("message");
  if (type == "message") {
    messages.push_back(read_message(fields));
  } else if (type == "function_call") {
    if (messages.empty() || messages.back().tool_calls.empty()) {
      messages.push_back(
          {.role = ChatRole::assistant, .content = {}, .tool_calls = {}, .tool_call_id = {}});
    }
    ChatToolCall call;
    call.id = read_required(fields, "call_id");
    call.name = read_required(fields, "name");
    call.arguments = read_required(fields, "arguments");
    messages.back().tool_calls.push_back(std::move(call));
    for (const char* ignored : {"id", "status"}) fields.any(ignored);
  } else if (type == "function_call_output") {
    ChatMessage result;
    result.role = ChatRole::tool;
    result.tool_call_id = read_required(fields, "call_id");
    if (fields.ok() && !has_call(messages, result.tool_call_id)) {
      fields.fail("call_id", "is \"" + brief_text(result.tool_call_id) +
                                 "\"; no function_call before it has that call_id");
    }
    result.content = read_text(fields, "output");
    messages.push_back(std::move(result));
    for (const char* ignored : {"id", "status", "name"}) fields.any(ignored);
  } else {
    fields.fail("type", "is \"" + brief_text(type) +
                            "\"; must be \"message\", \"function_call\" or "
                            "\"function_call_output\"");
  }
  fields.refuse_unread();
}

void read_input(JsonFields& parent, ChatInput& input, Status& status) {
  if (auto instructions = parent.string("instructions")) {
    input.messages.push_back({.role = ChatRole::system,
                              .content = std::move(*instructions),
                              .tool_calls = {},
                              .tool_call_id = {}});
  }
  const Json* items = parent.any("input");
  if (items == nullptr) {
    parent.fail("input", "is missing");
  } else if (items->is_string()) {
    input.messages.push_back({.role = ChatRole::user,
                              .content = items->get<std::string>(),
                              .tool_calls = {},
                              .tool_call_id = {}});
  } else if (!items->is_array() || items->empty()) {
    parent.fail("input", "is " +
                             std::string(items->is_array() ? "an empty array" : type_name(*items)) +
                             "; must be a string or an array of items");
  } else {
    for (std::size_t i = 0; i < items->size() && status.ok(); ++i) {
      const std::string name = "input[" + std::to_string(i) + "]";
      if (!(*items)[i].is_object()) {
        parent.fail_type(name, (*items)[i], "an object");
        return;
      }
      JsonFields fields((*items)[i], name, status);
      read_item(fields, input.messages);
    }
  }
}

/// A definition as the answer repeats it.
Json shown_tool(const Json& tool) {
  Json shown = {{"type", "function"}, {"name", tool.value("name", Json())}};
  if (tool.contains("description")) shown["description"] = tool["description"];
  shown["parameters"] = tool.value("parameters", Json());
  const Json strict = tool.value("strict", Json());
  shown["strict"] = strict.is_boolean() && strict.get<bool>();
  return shown;
}

/// Tools in the prompt have the form that chats give them.
Json read_tools(JsonFields& fields, ChatInput& input) {
  Json shown = Json::array();
  const Json* tools = fields.array("tools");
  if (tools == nullptr) return shown;
  for (std::size_t i = 0; i < tools->size(); ++i) {
    const Json& tool = (*tools)[i];
    if (type_of(tool) != "function") {
      fields.fail("tools[" + std::to_string(i) + "]",
                  "is " + of_type(tool) +
                      "; must be of type \"function\": this server runs no tools itself");
      break;
    }
    Json function = tool;
    function.erase("type");
    input.tools_json.push_back(
        Json{{"type", "function"}, {"function", std::move(function)}}.dump());
    shown.push_back(shown_tool(tool));
  }
  return shown;
}

void keep_allowed(JsonFields& fields, const Json& choice, const Json& tools, ChatInput& input) {
  const Json mode = choice.value("mode", Json());
  if (mode == "required") {
    input.tool_choice.kind = ToolChoice::Kind::required;
  } else if (mode != "auto") {
    fields.fail("tool_choice.mode", "is " + brief(mode) + "; must be \"auto\" or \"required\"");
  }
  const Json allowed = choice.value("tools", Json());
  if (!allowed.is_array()) fields.fail("tool_choice.tools", "is missing or not an array");
  if (!fields.ok()) return;
  std::vector<std::string> kept;
  for (std::size_t i = 0; i < allowed.size(); ++i) {
    const Json name = allowed[i].is_object() ? allowed[i].value("name", Json()) : Json();
    const auto found = std::ranges::find_if(
        tools, [&](const Json& tool) { return name.is_string() && tool["name"] == name; });
    if (found == tools.end()) {
      fields.fail("tool_choice.tools[" + std::to_string(i) + "]",
                  "names none of the functions in \"tools\"");
      return;
    }
    kept.push_back(input.tools_json[static_cast<std::size_t>(found - tools.begin())]);
  }
  input.tools_json = std::move(kept);
}

Json read_tool_choice(JsonFields& fields, const Json& tools, ChatInput& input) {
  const Json* choice = fields.any("tool_choice");
  if (choice == nullptr || *choice == "auto") return "auto";
  const Json type = type_of(*choice);
  if (*choice == "none") {
    input.tool_choice.kind = ToolChoice::Kind::none;
  } else if (*choice == "required") {
    input.tool_choice.kind = ToolChoice::Kind::required;
  } else if (type == "function" && choice->value("name", Json()).is_string()) {
    input.tool_choice = {ToolChoice::Kind::named, (*choice)["name"].get<std::string>()};
  } else if (type == "allowed_tools") {
    keep_allowed(fields, *choice, tools, input);
  } else {
    fields.fail("tool_choice", "is " + brief(*choice) +
                                   "; must be \"none\", \"auto\", \"required\", {\"type\": "
                                   "\"function\", \"name\": ...} or {\"type\": \"allowed_tools\", "
                                   "...}");
  }
  return *choice;
}

/// Returns `text` as the answer repeats it.
Json read_text_options(JsonFields& parent, ResponseFormat& format, Status& status) {
  Json shown = {{"format", {{"type", "text"}}}};
  const Json* object = parent.object("text");
  if (object == nullptr) return shown;
  JsonFields fields(*object, "text", status);
  require_neutral(fields, std::to_array<NeutralMember>({{"verbosity", "\"medium\""}}));
  if (const Json* wanted = fields.object("format")) {
    shown["format"] = *wanted;
    JsonFields members(*wanted, "text.format", status);
    const std::string type = members.string("type").value_or("");
    if (type == "json_schema") {
      format.kind = ResponseFormat::Kind::json_schema;
      read_format_schema(members, format);
    } else if (type == "json_object") {
      format.kind = ResponseFormat::Kind::json_object;
    } else if (type != "text") {
      members.fail("type", "is \"" + brief_text(type) +
                               "\"; must be \"text\", \"json_object\" or \"json_schema\"");
    }
    members.refuse_unread();
  }
  fields.refuse_unread();
  return shown;
}

/// Only what this server has can be included: logprobs.
bool read_include(JsonFields& fields) {
  const Json* include = fields.array("include");
  if (include == nullptr) return false;
  bool logprobs = false;
  for (std::size_t i = 0; i < include->size(); ++i) {
    if ((*include)[i] == "message.output_text.logprobs") {
      logprobs = true;
    } else {
      fields.fail(
          "include[" + std::to_string(i) + "]",
          "is " + brief((*include)[i]) + "; this server has only \"message.output_text.logprobs\"");
    }
  }
  return logprobs;
}

void read_stream(JsonFields& fields, OpenAiRequest& request, Status& status) {
  const Json* object = read_stream_options(fields, request.stream);
  if (object == nullptr) return;
  JsonFields options(*object, "stream_options", status);
  options.boolean("include_obfuscation");
  options.refuse_unread();
}

/// The members of a request that its answer repeats, and those that this server always has so.
Json read_members(JsonFields& fields, OpenAiRequest& request, Status& status) {
  auto& input = std::get<ChatInput>(request.input);
  GenerationOptions& options = input.options;
  read_input(fields, input, status);
  read_sampling(fields, options, status);
  request.names.priority = read_priority(fields, options);
  const bool logprobs = read_include(fields);
  const auto top = fields.integer("top_logprobs");
  if (logprobs || top.has_value()) options.top_logprobs = top.value_or(0);
  options.max_tokens = fields.integer("max_output_tokens");
  read_stream(fields, request, status);
  input.parallel_tool_calls = fields.boolean("parallel_tool_calls").value_or(true);

  const auto shown = [&](std::string_view name) {
    const Json* value = fields.any(name);
    return value != nullptr ? *value : Json();
  };
  const Json metadata = fields.object("metadata") != nullptr ? shown("metadata") : Json::object();
  Json tools = read_tools(fields, input);
  Json choice = read_tool_choice(fields, tools, input);
  Json text = read_text_options(fields, options.response_format, status);
  Json members = {{"background", false},
                  {"instructions", shown("instructions")},
                  {"max_output_tokens", shown("max_output_tokens")},
                  {"metadata", metadata},
                  {"parallel_tool_calls", input.parallel_tool_calls},
                  {"previous_response_id", nullptr},
                  {"store", false},
                  {"temperature", options.temperature.value_or(SamplingParams{}.temperature)},
                  {"text", std::move(text)},
                  {"tool_choice", std::move(choice)},
                  {"tools", std::move(tools)},
                  {"top_p", options.top_p.value_or(SamplingParams{}.top_p)},
                  {"truncation", "disabled"}};
  if (!options.user.empty()) members["user"] = options.user;
  for (const std::string_view name : kIgnored) fields.any(name);
  require_neutral(fields, kNeutral);
  return members;
}

}  // namespace

StatusOr<OpenAiRequest> parse_responses_request(std::string_view body) {
  Json root;
  if (Status status = parse_body(body, root); !status.ok()) return status;
  Status status;
  JsonFields fields(root, "", status);
  OpenAiRequest request = {.input = ChatInput{}, .names = {.endpoint = OpenAiEndpoint::responses}};
  auto& input = std::get<ChatInput>(request.input);
  input.id_prefix = "resp_";
  input.model = fields.string("model").value_or("");
  const Json members = read_members(fields, request, status);
  fields.refuse_unread();
  if (!status.ok()) return status;
  request.response_members = members.dump();
  return request;
}

}  // namespace mobius
