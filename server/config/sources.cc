#include "server/config/sources.h"

#include <filesystem>
#include <iterator>
#include <system_error>
#include <utility>
#include <variant>

#include "server/config/schema.h"

namespace mobius {
namespace {

/// Whether the field that `key` names differs; `to` gets the value of `from` where `copy`.
bool differs(const ConfigKey& key, ServerConfig& from, ServerConfig& to, bool copy) {
  return std::visit(
      [&](auto field) {
        if (field(from) == field(to)) return false;
        if (copy) field(to) = field(from);
        return true;
      },
      key.field);
}

}  // namespace

std::vector<std::string> read_config(const ConfigSources& sources, ServerConfig& config) {
  std::vector<std::string> errors;
  if (!sources.file.empty()) errors = load_config_file(config, sources.file);
  for (const auto* overrides : {&sources.environment, &sources.command_line}) {
    std::vector<std::string> more = apply_overrides(config, *overrides);
    std::move(more.begin(), more.end(), std::back_inserter(errors));
  }
  return errors;
}

ConfigReload reload_config(const ServerConfig& running, const ConfigSources& sources) {
  ConfigReload result{running, {}, {}, {}};
  // To open a pipe that nobody writes to would wait for ever, and the caller is who stops the
  // server. At the start it is allowed: --config <(...).
  std::error_code ignored;
  const auto type = std::filesystem::status(sources.file, ignored).type();
  using enum std::filesystem::file_type;
  if (type == fifo || type == character || type == block || type == socket) {
    result.errors = {sources.file + ": cannot be read again: is not a regular file"};
    return result;
  }
  ServerConfig wanted;
  result.errors = read_config(sources, wanted);
  // Values that contradict each other are worth a line only once each of them is valid.
  if (result.errors.empty()) result.errors = check_config(wanted);
  if (!result.errors.empty()) return result;
  for (const ConfigKey& key : config_schema()) {
    if (!differs(key, wanted, result.config, key.reloads)) continue;
    (key.reloads ? result.changed : result.kept).push_back(key.key);
  }
  return result;
}

}  // namespace mobius
