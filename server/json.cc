#include "server/json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

/// Builds the value itself instead of using the library's own builder, for the sake of duplicate
/// keys, depth, and the quadratic cost of inserting into an ordered object key by key.
class Builder {
 public:
  Builder(const JsonLimits& limits, Json& root) : limits_(limits), root_(root) {}

  bool null() { return add(nullptr) != nullptr; }
  bool boolean(bool value) { return add(value) != nullptr; }
  bool number_integer(Json::number_integer_t value) { return add(value) != nullptr; }
  bool number_unsigned(Json::number_unsigned_t value) { return add(value) != nullptr; }
  bool number_float(Json::number_float_t value, const std::string& /*text*/) {
    return add(value) != nullptr;
  }
  bool string(std::string& value) { return add(std::move(value)) != nullptr; }
  bool binary(Json::binary_t& /*value*/) { return false; }

  bool start_object(std::size_t /*size*/) { return open(Json::object()); }
  bool end_object() { return close(); }
  bool start_array(std::size_t /*size*/) { return open(Json::array()); }
  bool end_array() { return close(); }

  bool key(std::string& name) {
    if (!open_.back().keys.insert(name).second) {
      error_ = "duplicate key \"" + brief_text(name) + "\"";
      return false;
    }
    key_ = std::move(name);
    return true;
  }

  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& exception) {
    position_ = position;
    error_ = exception.what();
    return false;
  }

  /// Empty when the text was fine.
  const std::string& error() const { return error_; }
  /// Where the library stopped, 1-based; 0 where the refusal was our own.
  std::size_t position() const { return position_; }

 private:
  struct Open {
    Json* value;
    std::unordered_set<std::string> keys;
  };

  Json* add(Json value) {
    if (++values_ > limits_.values) {
      error_ = "more than " + std::to_string(limits_.values) + " values";
      return nullptr;
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back().value;
    if (parent.is_array()) {
      auto& items = parent.get_ref<Json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    auto& members = parent.get_ref<Json::object_t&>();
    members.Json::object_t::Container::emplace_back(std::move(key_), std::move(value));
    return &members.back().second;
  }

  bool open(Json value) {
    if (open_.size() >= limits_.depth) {
      error_ = "nested deeper than " + std::to_string(limits_.depth) + " levels";
      return false;
    }
    Json* added = add(std::move(value));
    if (added == nullptr) return false;
    open_.push_back({added, {}});
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  JsonLimits limits_;
  Json& root_;
  std::vector<Open> open_;
  std::string key_;
  std::size_t values_ = 0;
  std::string error_;
  std::size_t position_ = 0;
};

/// "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error ..." without
/// what only programmers of the library need.
std::string plain_message(const std::string& what) {
  const std::size_t bracket = what.find("] ");
  std::string text = bracket == std::string::npos ? what : what.substr(bracket + 2);
  const std::string prefix = "parse error at ";
  if (text.starts_with(prefix)) text.erase(0, prefix.size());
  return brief_text(text, 240);
}

}  // namespace

bool parse_json(std::string_view text, const JsonLimits& limits, Json& out, std::string& error) {
  Builder builder(limits, out);
  if (Json::sax_parse(text.begin(), text.end(), &builder)) return true;
  error = builder.error().empty() ? "not JSON" : plain_message(builder.error());
  return false;
}

std::string_view type_name(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null: return "null";
    case Json::value_t::boolean: return "a boolean";
    case Json::value_t::string: return "a string";
    case Json::value_t::array: return "an array";
    case Json::value_t::object: return "an object";
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned: return "an integer";
    case Json::value_t::number_float: return "a number";
    default: return "nothing";
  }
}

std::string brief(const Json& value) {
  if (value.is_object() || value.is_array()) return std::string(type_name(value));
  if (value.is_string()) {
    return '"' + brief_text(value.get_ref<const std::string&>()) + '"';
  }
  return value.dump();
}

std::string brief_text(std::string_view text, std::size_t max_bytes) {
  std::string_view shown = text.substr(0, max_bytes);
  if (shown.size() < text.size()) {
    // Do not end inside a character: step back over continuation bytes.
    while (!shown.empty() && (static_cast<unsigned char>(text[shown.size()]) & 0xC0U) == 0x80U) {
      shown.remove_suffix(1);
    }
  }
  std::string result(shown);
  std::replace_if(
      result.begin(), result.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20U; },
      '?');
  if (shown.size() < text.size()) result += "...";
  return result;
}

}  // namespace mobius
