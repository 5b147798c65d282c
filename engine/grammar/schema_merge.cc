#include "engine/grammar/schema_merge.h"

#include <algorithm>
#include <array>

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

Json as_array(const Json& value) {
  return value.is_array() ? value : Json::array({value});
}

bool has(const Json& array, const Json& value) {
  return std::find(array.begin(), array.end(), value) != array.end();
}

Json types_in_both(const Json& a, const Json& b) {
  const Json left = as_array(a);
  const Json right = as_array(b);
  Json out = Json::array();
  for (const Json& type : left) {
    if (has(right, type) || (type == "integer" && has(right, "number"))) out.push_back(type);
  }
  for (const Json& type : right) {
    if (type == "integer" && has(left, "number") && !has(out, type)) out.push_back(type);
  }
  return out;
}

}  // namespace

bool is_annotation(std::string_view keyword) {
  constexpr auto kAnnotations = std::to_array<std::string_view>(
      {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
       "contentEncoding", "contentMediaType", "$comment", "$schema", "$id", "$defs",
       "definitions"});
  return std::ranges::count(kAnnotations, keyword) > 0;
}

bool merge_schema(Json& into, const Json& from, std::string& keyword) {
  // "No other properties" counts only what its own schema names.
  const auto closed = [](const Json& schema) {
    return schema.contains("additionalProperties") && schema["additionalProperties"] != true;
  };
  const auto names_within = [](const Json& some, const Json& all) {
    if (!some.contains("properties") || !some["properties"].is_object()) return true;
    const bool any = all.contains("properties") && all["properties"].is_object();
    const auto& members = some["properties"].get_ref<const Json::object_t&>();
    return std::ranges::all_of(members, [&](const auto& member) {
      return any && all["properties"].contains(member.first);
    });
  };
  if ((closed(into) && !names_within(from, into)) || (closed(from) && !names_within(into, from))) {
    keyword = "additionalProperties";
    return false;
  }
  for (const auto& [name, value] : from.items()) {
    if (is_annotation(name)) continue;
    if (!into.contains(name)) {
      into[name] = value;
      continue;
    }
    Json& mine = into[name];
    if (mine == value) continue;
    const bool numbers = mine.is_number() && value.is_number();
    const bool lower = name == "minimum" || name == "exclusiveMinimum" || name == "minLength" ||
                       name == "minItems";
    const bool upper = name == "maximum" || name == "exclusiveMaximum" || name == "maxLength" ||
                       name == "maxItems";
    if (numbers && (lower || upper)) {
      if (lower ? value > mine : value < mine) mine = value;
    } else if (name == "type") {
      mine = types_in_both(mine, value);
    } else if (name == "required" && mine.is_array() && value.is_array()) {
      for (const Json& property : value) {
        if (!has(mine, property)) mine.push_back(property);
      }
    } else if (name == "enum" && mine.is_array() && value.is_array()) {
      Json both = Json::array();
      for (const Json& item : mine) {
        if (has(value, item)) both.push_back(item);
      }
      mine = both;
      if (both.empty()) {  // said without an enum, which must not be empty
        into.erase("enum");
        into["type"] = Json::array();
      }
    } else if (name == "const") {
      into["type"] = Json::array();
    } else if (name == "properties" && mine.is_object() && value.is_object()) {
      for (const auto& [property, schema] : value.items()) {
        mine[property] = mine.contains(property)
                             ? Json{{"allOf", Json::array({mine[property], schema})}}
                             : schema;
      }
    } else if (name == "items") {
      mine = Json{{"allOf", Json::array({mine, value})}};
    } else {
      keyword = name;
      return false;
    }
  }
  return true;
}

}  // namespace mobius
