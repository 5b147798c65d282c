#include "server/http/json_fields.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "server/json.h"

namespace mobius {

using Json = nlohmann::ordered_json;

std::optional<std::int64_t> as_int64(const Json& value) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() &&
      value.get<std::uint64_t>() > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
    return std::nullopt;
  }
  return value.get<std::int64_t>();
}

Json type_of(const Json& value) {
  return value.is_object() ? value.value("type", Json()) : Json();
}

std::string of_type(const Json& value) {
  if (!value.is_object()) return std::string(type_name(value));
  const Json type = type_of(value);
  return type.is_null() ? "without a type" : "of type " + brief(type);
}

JsonFields::JsonFields(const Json& object, std::string path, Status& status)
    : object_(object), path_(std::move(path)), status_(status) {}

std::string JsonFields::path(std::string_view name) const {
  return path_.empty() ? std::string(name) : path_ + '.' + std::string(name);
}

void JsonFields::fail(std::string_view name, const std::string& problem) {
  if (!status_.ok()) return;
  const std::string field = path(name);
  status_ = Status::invalid(field, field + ' ' + problem);
}

void JsonFields::fail_type(std::string_view name, const Json& value, std::string_view wanted) {
  std::string text = "is " + std::string(type_name(value));
  if (value.is_primitive() && !value.is_null()) text += " (" + brief(value) + ')';
  fail(name, text + "; must be " + std::string(wanted));
}

const Json* JsonFields::any(std::string_view name) {
  read_.push_back(name);
  if (!status_.ok()) return nullptr;
  const auto& members = object_.get_ref<const Json::object_t&>();
  const auto found = std::find_if(members.begin(), members.end(),
                                  [name](const auto& member) { return member.first == name; });
  return found == members.end() || found->second.is_null() ? nullptr : &found->second;
}

const Json* JsonFields::object(std::string_view name) {
  const Json* value = any(name);
  if (value == nullptr || value->is_object()) return value;
  fail_type(name, *value, "an object");
  return nullptr;
}

const Json* JsonFields::array(std::string_view name) {
  const Json* value = any(name);
  if (value == nullptr || value->is_array()) return value;
  fail_type(name, *value, "an array");
  return nullptr;
}

std::optional<double> JsonFields::number(std::string_view name) {
  const Json* value = any(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_number()) return value->get<double>();
  fail_type(name, *value, "a number");
  return std::nullopt;
}

std::optional<std::int64_t> JsonFields::integer(std::string_view name) {
  const Json* value = any(name);
  if (value == nullptr) return std::nullopt;
  const std::optional<std::int64_t> result = as_int64(*value);
  if (!result.has_value()) fail_type(name, *value, "an integer of at most 64 bits");
  return result;
}

std::optional<bool> JsonFields::boolean(std::string_view name) {
  const Json* value = any(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  fail_type(name, *value, "a boolean");
  return std::nullopt;
}

std::optional<std::string> JsonFields::string(std::string_view name) {
  const Json* value = any(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  fail_type(name, *value, "a string");
  return std::nullopt;
}

void JsonFields::refuse_unread() {
  if (!status_.ok()) return;
  for (const auto& [name, value] : object_.get_ref<const Json::object_t&>()) {
    if (std::find(read_.begin(), read_.end(), name) == read_.end()) {
      const std::string field = path(brief_text(name));
      status_ = Status::invalid(field, field + " is not a field that this server knows");
      return;
    }
  }
}

Status parse_body(std::string_view body, Json& object) {
  std::string error;
  if (!parse_json(body, {}, object, error)) {
    return Status::invalid("", "the body is not valid JSON: " + error);
  }
  if (!object.is_object()) {
    return Status::invalid("",
                           "the body is " + std::string(type_name(object)) + "; must be an object");
  }
  return {};
}

}  // namespace mobius
