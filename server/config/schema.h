#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "server/config/config.h"

namespace mobius {

/// One key of the configuration. Its default is the field's initial value in ServerConfig.
struct ConfigKey {
  /// Where the value lives; the alternative is the key's type.
  using Field = std::variant<bool& (*)(ServerConfig&), std::int64_t& (*)(ServerConfig&),
                             std::string& (*)(ServerConfig&)>;

  std::string_view key;  ///< "section.name" or "section.part.name"
  Field field;
  std::int64_t min = 0;  ///< integers: inclusive range
  std::int64_t max = 0;
  std::int64_t multiple_of = 1;  ///< integers
  std::string_view choices;      ///< strings: "a|b|c"; empty allows any text
  std::string_view unit;         ///< "tokens", "bytes", ...; empty if it has none
  std::string_view doc;          ///< one sentence
  bool secret = false;           ///< never shown, and not taken from the command line
  bool reloads = false;          ///< a running server takes a new value (sources.h)
};

/// Every key, in the order of the documentation.
std::span<const ConfigKey> config_schema();

/// nullptr when there is no such key.
const ConfigKey* find_config_key(std::string_view key);

/// The key or section that a misspelt one probably meant; empty if none is near.
std::string_view nearest_config_key(std::string_view key);

/// Sets a value; the alternative must be the key's type. Returns what is wrong with it ("is 99999;
/// must be 0 to 65535"), or an empty string.
std::string set_config_value(ServerConfig& config, const ConfigKey& key,
                             const std::variant<bool, std::int64_t, std::string>& value);

/// The current value as text: a default for the documentation.
std::string config_value_text(const ServerConfig& config, const ConfigKey& key);

/// "integer", "0 to 65535 (bytes)" and the like.
std::string_view config_type_name(const ConfigKey& key);
std::string config_range_text(const ConfigKey& key);

/// The documentation of all keys: a Markdown table, and lines for a terminal.
std::string config_docs_markdown();
std::string config_docs_terminal();

}  // namespace mobius
