#pragma once

// Included by .cc files of this folder only: nlohmann/json is slow to compile.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace mobius {

/// Parses a JSON object that somebody else wrote. Refuses duplicate keys (parsers disagree on which
/// one counts), nesting deeper than eight levels, and text that is not JSON. Throws
/// std::runtime_error with one line that begins with `what`.
nlohmann::json parse_json_object(std::string_view text, const std::string& what);

/// The JSON object in a file of at most `max_bytes`.
nlohmann::json read_json_file(const std::filesystem::path& path, std::uintmax_t max_bytes);

/// A name from a file as it may appear in a one-line message: quoted, control characters escaped,
/// shortened.
std::string in_quotes(std::string_view name);

/// A JSON value for a one-line message, shortened.
std::string shown(const nlohmann::json& value);

}  // namespace mobius
