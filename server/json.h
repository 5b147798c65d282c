#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace mobius {

/// What a JSON text may cost. Depth bounds recursion, values bound memory (16 bytes and more each).
struct JsonLimits {
  std::size_t depth = 100;
  std::size_t values = std::size_t{4} << 20U;
};

/// Parses strict JSON (RFC 8259): no comments, no NaN, no duplicate keys, valid UTF-8, one value.
/// Objects keep the order of their keys. Returns false and fills `error` with one line that says
/// where ("line 3, column 7: ...") when the text is refused. Thread-safe.
bool parse_json(std::string_view text, const JsonLimits& limits, nlohmann::ordered_json& out,
                std::string& error);

/// "a string", "an integer", ... for messages.
std::string_view type_name(const nlohmann::ordered_json& value);

/// The value as compact JSON, cut to a length that fits in a message. Always valid UTF-8.
std::string brief(const nlohmann::ordered_json& value);

/// A client's own text for use in a message: control characters become '?', long text is cut at a
/// character's end.
std::string brief_text(std::string_view text, std::size_t max_bytes = 64);

}  // namespace mobius
