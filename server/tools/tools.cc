#include "server/tools/tools.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "server/json.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxTools = 128;
constexpr std::size_t kMaxName = 64;

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxName && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
}

/// A member that is not null, or nullptr.
const Json* member(const Json& object, std::string_view name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

Status wrong(const std::string& field, const std::string& problem) {
  return Status::invalid(field, field + ' ' + problem);
}

StatusOr<std::string> read_parameters(const Json& function, const std::string& field) {
  const Json* parameters = member(function, "parameters");
  // As in OpenAI's API: who says nothing of parameters has none.
  if (parameters == nullptr) {
    return std::string(R"({"type":"object","properties":{},"additionalProperties":false})");
  }
  if (!parameters->is_object()) {
    return wrong(field, "is " + std::string(type_name(*parameters)) + "; must be an object");
  }
  Json schema = *parameters;
  if (const Json* type = member(schema, "type"); type != nullptr && *type != "object") {
    return wrong(field + ".type", "is " + brief(*type) + "; must be \"object\"");
  }
  schema["type"] = "object";
  return schema.dump();
}

StatusOr<Tool> read_tool(std::string_view text, std::size_t index) {
  const std::string field = "tools[" + std::to_string(index) + "]";
  Json json;
  std::string error;
  if (!parse_json(text, {}, json, error)) return wrong(field, "is not valid JSON: " + error);
  if (!json.is_object()) return wrong(field, "is not a JSON object");
  const Json* wrapped = member(json, "function");
  const Json& function = wrapped != nullptr && wrapped->is_object() ? *wrapped : json;
  const std::string at = &function == &json ? field : field + ".function";
  Tool tool;
  const Json* name = member(function, "name");
  if (name == nullptr) return wrong(at + ".name", "is missing");
  if (!name->is_string() || !is_name(name->get_ref<const std::string&>())) {
    return wrong(at + ".name", "is " + brief(*name) + "; must be 1 to " + std::to_string(kMaxName) +
                                   " letters, digits, underscores and dashes");
  }
  tool.name = name->get<std::string>();
  StatusOr<std::string> parameters = read_parameters(function, at + ".parameters");
  if (!parameters.ok()) return parameters.status();
  tool.parameters = std::move(parameters).value();
  if (const Json* strict = member(function, "strict")) {
    if (!strict->is_boolean()) {
      return wrong(at + ".strict", "is " + std::string(type_name(*strict)) + "; must be a boolean");
    }
    tool.strict = strict->get<bool>();
  }
  return tool;
}

/// Points a schema's references to where its root has moved in another.
void move_references(Json& schema, const std::string& root) {
  if (!schema.is_object()) return;
  for (auto& [name, value] : schema.items()) {
    if (name == "$ref" && value.is_string() &&
        value.get_ref<const std::string&>().starts_with('#')) {
      value = root + value.get<std::string>().substr(1);
    } else if (name == "properties" || name == "$defs" || name == "definitions") {
      if (!value.is_object()) continue;
      for (auto& [key, each] : value.items()) move_references(each, root);
    } else if (name != "enum" && name != "const" && name != "default" && name != "examples") {
      move_references(value, root);
      if (!value.is_array()) continue;
      for (Json& each : value) move_references(each, root);
    }
  }
}

/// `any` instead of the parameters' schema: an object of any kind.
Json call_schema(const Tool& tool, bool any, const std::string& root) {
  Json parameters = Json::parse(any ? std::string(kAnyArguments) : tool.parameters);
  move_references(parameters, root + "/properties/parameters");
  return {{"type", "object"},
          {"properties", {{"name", {{"const", tool.name}}}, {"parameters", std::move(parameters)}}},
          {"required", {"name", "parameters"}},
          {"additionalProperties", false}};
}

/// The schema of a format that is not text.
StatusOr<Json> format_schema(const ResponseFormat& format) {
  if (format.kind == ResponseFormat::Kind::json_object) return Json::parse(kAnyArguments);
  Json schema;
  std::string error;
  if (!parse_json(format.schema, {}, schema, error)) {
    return wrong("response_format.schema", "is not valid JSON: " + error);
  }
  return schema;
}

}  // namespace

StatusOr<std::vector<Tool>> read_tools(std::span<const std::string> tools_json) {
  if (tools_json.size() > kMaxTools) {
    return wrong("tools", "has " + std::to_string(tools_json.size()) +
                              " tools; must have at most " + std::to_string(kMaxTools));
  }
  std::vector<Tool> tools;
  for (std::size_t i = 0; i < tools_json.size(); ++i) {
    StatusOr<Tool> tool = read_tool(tools_json[i], i);
    if (!tool.ok()) return tool.status();
    if (std::ranges::count(tools, tool.value().name, &Tool::name) > 0) {
      return wrong("tools[" + std::to_string(i) + "]",
                   "has the name of another tool, \"" + tool.value().name + '"');
    }
    tools.push_back(std::move(tool).value());
  }
  return tools;
}

StatusOr<std::optional<CallGrammar>> call_grammar(std::span<const Tool> tools,
                                                  const ToolChoice& choice, bool parallel,
                                                  const ResponseFormat& format) {
  using Kind = ToolChoice::Kind;
  const bool forced = choice.kind == Kind::required || choice.kind == Kind::named;
  if (forced && tools.empty()) {
    return Status::invalid("tool_choice", "tool_choice asks for a call, and there are no tools");
  }
  if (choice.kind == Kind::named && std::ranges::count(tools, choice.name, &Tool::name) == 0) {
    return Status::invalid("tool_choice", "tool_choice names \"" + brief_text(choice.name) +
                                              "\", which is none of the tools");
  }
  const bool any_text = format.kind == ResponseFormat::Kind::text;
  const bool free = any_text && std::ranges::none_of(tools, &Tool::strict);
  if (!forced && (free || tools.empty())) {
    return std::optional<CallGrammar>();
  }

  CallGrammar grammar;
  Json calls = Json::array();
  for (const Tool& tool : tools) {
    if (choice.kind == Kind::named && tool.name != choice.name) continue;
    const std::string root = "#/calls/anyOf/" + std::to_string(calls.size());
    calls.push_back(call_schema(tool, !forced && !tool.strict, root));
  }
  Json schema = {{"calls", {{"anyOf", std::move(calls)}}}};
  grammar.forms.values = "#/calls";
  grammar.forms.several = parallel && choice.kind != Kind::named;
  grammar.forms.text = !forced && any_text;
  // A format is for answers, and a forced call leaves no room for one.
  if (!forced && !any_text) {
    StatusOr<Json> answer = format_schema(format);
    if (!answer.ok()) return answer.status();
    schema["answer"] = std::move(answer).value();
    grammar.forms.other = "#/answer";
    move_references(schema["answer"], grammar.forms.other);
  }
  grammar.schema = schema.dump();
  return std::optional<CallGrammar>(std::move(grammar));
}

}  // namespace mobius
