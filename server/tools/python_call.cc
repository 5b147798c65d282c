#include "server/tools/python_call.h"

#include <algorithm>
#include <cstddef>
#include <nlohmann/json.hpp>

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  bool at_end() const { return at_ == text_.size(); }
  void skip_spaces() {
    while (!at_end() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
  }
  bool skip(std::string_view token) {
    if (!text_.substr(at_).starts_with(token)) return false;
    at_ += token.size();
    return true;
  }
  std::string name() {
    const std::size_t begin = at_;
    while (!at_end() && is_name_char(text_[at_])) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  /// Up to the comma or bracket that ends the value.
  std::optional<Json> value() {
    if (!at_end() && (text_[at_] == '"' || text_[at_] == '\'')) return string();
    const std::size_t begin = at_;
    std::size_t depth = 0;
    bool quoted = false;
    for (; !at_end(); ++at_) {
      const char c = text_[at_];
      if (quoted) {
        if (c == '\\') {
          ++at_;
          if (at_end()) return std::nullopt;
        } else if (c == '"') {
          quoted = false;
        }
        continue;
      }
      if (depth == 0 && (c == ',' || c == ')')) break;
      if (c == '"') quoted = true;
      if (c == '[' || c == '{') ++depth;
      if (depth > 0 && (c == ']' || c == '}')) --depth;
    }
    std::string_view text = text_.substr(begin, at_ - begin);
    while (text.ends_with(' ')) text.remove_suffix(1);
    if (text == "True") return Json(true);
    if (text == "False") return Json(false);
    if (text == "None") return Json(nullptr);
    Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) return std::nullopt;
    return json;
  }

 private:
  std::optional<Json> string() {
    const char quote = text_[at_++];
    std::string out;
    for (; !at_end(); ++at_) {
      char c = text_[at_];
      if (c == quote) {
        ++at_;
        return Json(std::move(out));
      }
      if (c == '\\' && at_ + 1 < text_.size()) {
        const char escaped = text_[++at_];
        const bool known = escaped == quote || escaped == '\\';
        if (escaped == 'n') {
          c = '\n';
        } else if (escaped == 't') {
          c = '\t';
        } else if (known) {
          c = escaped;
        } else {  // as Python leaves escapes that it does not know
          out += c;
          c = escaped;
        }
      }
      out += c;
    }
    return std::nullopt;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

std::optional<PythonCall> parse_python_call(std::string_view text) {
  Reader reader(text);
  PythonCall call;
  call.name = reader.name();
  if (call.name.empty() || !reader.skip(".call(")) return std::nullopt;
  Json arguments = Json::object();
  reader.skip_spaces();
  bool closed = reader.skip(")");
  while (!closed) {
    const std::string key = reader.name();
    reader.skip_spaces();
    if (key.empty() || !reader.skip("=")) return std::nullopt;
    reader.skip_spaces();
    const std::optional<Json> value = reader.value();
    if (!value) return std::nullopt;
    arguments[key] = *value;
    reader.skip_spaces();
    closed = reader.skip(")");
    if (!closed && !reader.skip(",")) return std::nullopt;
    reader.skip_spaces();
  }
  if (!reader.at_end()) return std::nullopt;
  call.arguments = arguments.dump(-1, ' ', false, Json::error_handler_t::replace);
  return call;
}

}  // namespace mobius
