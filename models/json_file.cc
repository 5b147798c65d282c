#include "models/json_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

namespace mobius {
namespace {

constexpr int kMaxDepth = 8;
constexpr std::size_t kMaxShown = 120;

using nlohmann::json;

/// Builds a document from SAX events, which is the one way to see a duplicate key.
class StrictBuilder : public nlohmann::json_sax<json> {
 public:
  explicit StrictBuilder(const std::string& what) : what_(what) {}
  json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t& value) override { return add(std::move(value)); }

  bool start_object(std::size_t /*size*/) override { return open(json::object()); }
  bool start_array(std::size_t /*size*/) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (stack_.back()->contains(name)) {
      throw std::runtime_error(what_ + ": key " + in_quotes(name) + " appears twice");
    }
    key_ = std::move(name);
    return true;
  }

  bool parse_error(std::size_t position, const std::string& /*last_token*/,
                   const json::exception& /*error*/) override {
    throw std::runtime_error(what_ + ": not valid JSON at byte " + std::to_string(position));
  }

 private:
  json* insert(json value) {
    if (stack_.empty()) return &(root_ = std::move(value));
    json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }

  bool add(json value) {
    insert(std::move(value));
    return true;
  }

  bool open(json value) {
    if (stack_.size() >= kMaxDepth) {
      throw std::runtime_error(what_ + ": JSON nested deeper than " + std::to_string(kMaxDepth) +
                               " levels");
    }
    stack_.push_back(insert(std::move(value)));
    return true;
  }

  bool close() {
    stack_.pop_back();
    return true;
  }

  const std::string& what_;
  json root_;
  std::string key_;
  // A container does not move while it is open: only its own last element grows.
  std::vector<json*> stack_;
};

}  // namespace

json parse_json_object(std::string_view text, const std::string& what) {
  StrictBuilder builder(what);
  json::sax_parse(text.begin(), text.end(), &builder);
  json document = builder.take();
  if (!document.is_object()) {
    throw std::runtime_error(what + ": found " + document.type_name() + ", expected a JSON object");
  }
  return document;
}

json read_json_file(const std::filesystem::path& path, std::uintmax_t max_bytes) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error) throw std::runtime_error(path.string() + ": cannot open: " + error.message());
  if (size > max_bytes) {
    throw std::runtime_error(path.string() + ": has " + std::to_string(size) +
                             " bytes, expected at most " + std::to_string(max_bytes));
  }
  std::string text(size, '\0');
  std::ifstream stream(path, std::ios::binary);
  if (!stream.read(text.data(), static_cast<std::streamsize>(size))) {
    throw std::runtime_error(path.string() + ": cannot read: " + std::strerror(errno));
  }
  return parse_json_object(text, path.string());
}

std::string in_quotes(std::string_view name) {
  const bool cut = name.size() > kMaxShown;
  // dump() escapes what would break a line; bytes that are not UTF-8 are replaced.
  std::string text = json(std::string(name.substr(0, kMaxShown)))
                         .dump(-1, ' ', true, json::error_handler_t::replace);
  if (cut) text += "...";
  return text;
}

std::string shown(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > kMaxShown) text = text.substr(0, kMaxShown) + "...";
  return text;
}

}  // namespace mobius
