#include "tests/unit/grammar/schema_checker.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <regex>
#include <string>

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

std::size_t characters(const std::string& text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
}

bool is_type(const Json& value, const Json& type) {
  if (type == "null") return value.is_null();
  if (type == "boolean") return value.is_boolean();
  if (type == "string") return value.is_string();
  if (type == "array") return value.is_array();
  if (type == "object") return value.is_object();
  if (type == "number") return value.is_number();
  return value.is_number() && std::floor(value.get<double>()) == value.get<double>();
}

bool number_meets(double value, const Json& schema) {
  if (schema.contains("minimum") && value < schema["minimum"].get<double>()) return false;
  if (schema.contains("maximum") && value > schema["maximum"].get<double>()) return false;
  if (schema.contains("exclusiveMinimum") && value <= schema["exclusiveMinimum"].get<double>()) {
    return false;
  }
  if (schema.contains("exclusiveMaximum") && value >= schema["exclusiveMaximum"].get<double>()) {
    return false;
  }
  if (schema.contains("multipleOf")) {
    const double times = value / schema["multipleOf"].get<double>();
    if (std::abs(times - std::round(times)) > 1e-6 * std::max(1.0, std::abs(times))) return false;
  }
  return true;
}

bool string_meets(const std::string& value, const Json& schema) {
  const std::size_t length = characters(value);
  if (schema.contains("minLength") && length < schema["minLength"].get<std::size_t>()) return false;
  if (schema.contains("maxLength") && length > schema["maxLength"].get<std::size_t>()) return false;
  return !schema.contains("pattern") ||
         std::regex_search(value, std::regex(schema["pattern"].get<std::string>()));
}

bool array_meets(const Json& value, const Json& schema, const Json& root) {
  if (schema.contains("minItems") && value.size() < schema["minItems"].get<std::size_t>()) {
    return false;
  }
  if (schema.contains("maxItems") && value.size() > schema["maxItems"].get<std::size_t>()) {
    return false;
  }
  const std::size_t first = schema.contains("prefixItems") ? schema["prefixItems"].size() : 0;
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (i < first) {
      if (!meets(value[i], schema["prefixItems"][i], root)) return false;
    } else if (schema.contains("items") && !meets(value[i], schema["items"], root)) {
      return false;
    }
  }
  return true;
}

bool object_meets(const Json& value, const Json& schema, const Json& root) {
  if (schema.contains("required")) {
    for (const Json& name : schema["required"]) {
      if (!value.contains(name.get<std::string>())) return false;
    }
  }
  for (const auto& [name, member] : value.items()) {
    if (schema.contains("properties") && schema["properties"].contains(name)) {
      if (!meets(member, schema["properties"][name], root)) return false;
    } else if (schema.contains("additionalProperties") &&
               !meets(member, schema["additionalProperties"], root)) {
      return false;
    }
  }
  return true;
}

}  // namespace

bool meets(const Json& value, const Json& schema, const Json& root) {
  if (schema.is_boolean()) return schema.get<bool>();
  const auto one_of = [&](const Json& schemas) {
    return std::any_of(schemas.begin(), schemas.end(),
                       [&](const Json& each) { return meets(value, each, root); });
  };
  if (schema.contains("$ref")) {
    const auto name = schema["$ref"].get<std::string>();
    if (!meets(value, root.at(Json::json_pointer(name.substr(1))), root)) return false;
  }
  if (schema.contains("type")) {
    const Json& type = schema["type"];
    const Json types = type.is_array() ? type : Json::array({type});
    if (std::none_of(types.begin(), types.end(),
                     [&](const Json& each) { return is_type(value, each); })) {
      return false;
    }
  }
  if (schema.contains("const") && value != schema["const"]) return false;
  if (schema.contains("enum")) {
    const Json& all = schema["enum"];
    if (std::find(all.begin(), all.end(), value) == all.end()) return false;
  }
  if (schema.contains("anyOf") && !one_of(schema["anyOf"])) return false;
  if (schema.contains("oneOf") && !one_of(schema["oneOf"])) return false;
  if (schema.contains("allOf")) {
    for (const Json& each : schema["allOf"]) {
      if (!meets(value, each, root)) return false;
    }
  }
  if (value.is_number()) return number_meets(value.get<double>(), schema);
  if (value.is_string()) return string_meets(value.get<std::string>(), schema);
  if (value.is_array()) return array_meets(value, schema, root);
  if (value.is_object()) return object_meets(value, schema, root);
  return true;
}

}  // namespace mobius
