#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace mobius {

enum class LogLevel : std::uint8_t { trace, debug, info, warn, error };

/// A field's value; std::monostate leaves the field out.
using LogValue = std::variant<std::string_view, std::int64_t, double, std::monostate>;

/// For fields that most entries have nothing to say in.
inline LogValue unless_empty(std::string_view text) {
  return text.empty() ? LogValue(std::monostate()) : LogValue(text);
}

/// Chooses level ("trace" to "error", "off"), format ("text" or "json") and file (empty: standard
/// error). Call once, before threads log. Throws std::runtime_error if the file cannot be opened.
void setup_logging(const std::string& level, const std::string& format, const std::string& file);

/// Changes the level alone. Thread-safe.
void set_log_level(const std::string& level);

/// Writes one line: an event's name and its fields. Thread-safe. Never pass prompts or answers.
void log_event(LogLevel level, std::string_view event,
               std::initializer_list<std::pair<std::string_view, LogValue>> fields = {});

}  // namespace mobius
