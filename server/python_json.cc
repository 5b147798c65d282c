#include "server/python_json.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mobius {
namespace {

constexpr int kMostLevels = 200;

/// A JSON value whose scalars are already in Python's spelling.
struct Value {
  enum class Kind : std::uint8_t { scalar, array, object };
  Kind kind = Kind::scalar;
  std::string text;                                                      // scalar
  std::vector<Value> items;                                              // array and object
  std::vector<std::string> keys;                                         // object
  std::unique_ptr<std::unordered_map<std::string, std::size_t>> places;  // object: of keys
};

/// repr(float): the shortest digits that read back as the same number.
std::string python_float(double number) {
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), number, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<std::size_t>(end.ptr - buffer));
  const std::size_t e = text.find('e');
  const bool negative = text.front() == '-';
  std::string digits(text.substr(negative ? 1 : 0, e - (negative ? 1 : 0)));
  if (digits.size() > 1) digits.erase(1, 1);  // the point
  int exponent = 0;
  const std::string_view exponent_text = text.substr(text[e + 1] == '+' ? e + 2 : e + 1);
  std::from_chars(exponent_text.data(), exponent_text.data() + exponent_text.size(), exponent);

  std::string out = negative ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (digits.size() > 1) out += "." + digits.substr(1);
    const std::string magnitude = std::to_string(std::abs(exponent));
    out += exponent < 0 ? "e-" : "e+";
    return out + (magnitude.size() < 2 ? "0" : "") + magnitude;
  }
  if (exponent < 0) {
    return out + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  }
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= whole) {
    return out + digits + std::string(whole - digits.size(), '0') + ".0";
  }
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

/// Builds a Value from nlohmann's events, which unlike its values keep a number's literal.
class Builder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  Value root;
  std::string error;

  bool null() override { return scalar("null"); }
  bool boolean(bool value) override { return scalar(value ? "true" : "false"); }
  bool number_integer(std::int64_t value) override { return scalar(std::to_string(value)); }
  bool number_unsigned(std::uint64_t value) override { return scalar(std::to_string(value)); }
  bool number_float(double value, const std::string& literal) override {
    // An integer beyond 64 bits comes here too; Python's integers have no bounds.
    const bool integer = literal.find_first_of(".eE") == std::string::npos;
    return scalar(integer ? literal : python_float(value));
  }
  bool string(std::string& value) override { return scalar(python_json_string(value)); }
  bool binary(nlohmann::json::binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Value::Kind::object); }
  bool start_array(std::size_t) override { return open(Value::Kind::array); }
  bool key(std::string& name) override {
    key_ = name;
    return true;
  }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(std::size_t, const std::string&,
                   const nlohmann::json::exception& what) override {
    const std::string_view text = what.what();  // "[json.exception...] what is wrong"
    error = text.substr(std::min(text.find("] ") + 2, text.size()));
    return false;
  }

 private:
  Value* place() {
    if (open_.empty()) return &root;
    Value& parent = *open_.back();
    if (parent.kind == Value::Kind::object) {
      const auto [found, is_new] = parent.places->emplace(key_, parent.items.size());
      if (!is_new) return &parent.items[found->second];
      parent.keys.push_back(python_json_string(key_));
    }
    return &parent.items.emplace_back();
  }
  bool scalar(std::string text) {
    Value value;
    value.text = std::move(text);
    *place() = std::move(value);
    return true;
  }
  bool open(Value::Kind kind) {
    if (open_.size() == kMostLevels) {
      error = "nested deeper than " + std::to_string(kMostLevels) + " levels";
      return false;
    }
    // The pointer stays good: a parent gets no other item before this one is closed.
    Value* value = place();
    *value = Value();
    value->kind = kind;
    if (kind == Value::Kind::object) {
      value->places = std::make_unique<std::unordered_map<std::string, std::size_t>>();
    }
    open_.push_back(value);
    return true;
  }
  bool close() {
    open_.back()->places.reset();
    open_.pop_back();
    return true;
  }

  std::vector<Value*> open_;
  std::string key_;
};

void write(const Value& value, int indent, int level, std::string& out) {
  if (value.kind == Value::Kind::scalar) {
    out += value.text;
    return;
  }
  const bool object = value.kind == Value::Kind::object;
  const auto new_line = [&](int at_level) {
    if (indent == 0) return;
    out += '\n';
    out.append(static_cast<std::size_t>(indent * at_level), ' ');
  };
  out += object ? '{' : '[';
  for (std::size_t i = 0; i < value.items.size(); ++i) {
    if (i > 0) out += indent == 0 ? ", " : ",";
    new_line(level + 1);
    if (object) out += value.keys[i] + ": ";
    write(value.items[i], indent, level + 1, out);
  }
  if (!value.items.empty()) new_line(level);
  out += object ? '}' : ']';
}

}  // namespace

StatusOr<std::string> python_json_object(std::string_view json, int indent) {
  Builder builder;
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &builder)) {
    return Status::invalid("", "is not valid JSON: " + builder.error);
  }
  if (builder.root.kind != Value::Kind::object) return Status::invalid("", "is not a JSON object");
  std::string out;
  write(builder.root, indent, 0, out);
  return out;
}

std::string python_json_string(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default: {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20) {
          out += "\\u00";
          out += kHex[byte >> 4];
          out += kHex[byte & 15];
        } else {
          out += c;
        }
      }
    }
  }
  return out + '"';
}

}  // namespace mobius
