#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/status.h"

namespace mobius {

/// Reads the members of one JSON object with strict types. The first failure is kept, later reads
/// give nothing; a member that is null counts as absent. Names in messages carry the object's own
/// path ("messages[2].content"). Borrows the object and the status.
class JsonFields {
 public:
  JsonFields(const nlohmann::ordered_json& object, std::string path, Status& status);

  std::optional<double> number(std::string_view name);
  std::optional<std::int64_t> integer(std::string_view name);
  std::optional<bool> boolean(std::string_view name);
  std::optional<std::string> string(std::string_view name);
  /// The member as it is; nullptr if absent.
  const nlohmann::ordered_json* any(std::string_view name);
  const nlohmann::ordered_json* object(std::string_view name);
  const nlohmann::ordered_json* array(std::string_view name);

  /// "messages[2].content" for "content".
  std::string path(std::string_view name) const;
  /// Keeps a failure of the member: "<path> <problem>".
  void fail(std::string_view name, const std::string& problem);
  /// "is <type> (<value>); must be <wanted>".
  void fail_type(std::string_view name, const nlohmann::ordered_json& value,
                 std::string_view wanted);

  /// Fails for the first member that no read has asked for.
  void refuse_unread();

  bool ok() const { return status_.ok(); }

 private:
  const nlohmann::ordered_json& object_;
  std::string path_;
  Status& status_;
  std::vector<std::string_view> read_;
};

/// Parses a request's body, which must be one JSON object. invalid_argument without a field.
Status parse_body(std::string_view body, nlohmann::ordered_json& object);

/// The `type` of an object that has one; else null.
nlohmann::ordered_json type_of(const nlohmann::ordered_json& value);
/// What a value is whose `type` is wrong, for messages: "of type \"image_url\"", "a string",
/// "without a type".
std::string of_type(const nlohmann::ordered_json& value);

/// The integer that a JSON number is, if it is one that fits.
std::optional<std::int64_t> as_int64(const nlohmann::ordered_json& value);

}  // namespace mobius
