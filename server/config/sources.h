#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/config/config.h"

namespace mobius {

/// Where a configuration comes from, the weakest first.
struct ConfigSources {
  std::string file;  ///< empty: none
  std::vector<ConfigOverride> environment;
  std::vector<ConfigOverride> command_line;
};

/// Reads all of them over the defaults. Returns every error, one line each; `config` is unusable
/// unless there are none. Whether values contradict each other is for check_config.
std::vector<std::string> read_config(const ConfigSources& sources, ServerConfig& config);

/// What a second look at the sources found.
struct ConfigReload {
  ServerConfig config;  ///< the running one, with the new values of keys that can change
  std::vector<std::string_view> changed;  ///< keys whose new value counts
  std::vector<std::string_view> kept;     ///< ... and others, which need a restart
  std::vector<std::string> errors;        ///< where there are any, `config` is the running one
};

/// Reads the sources again. Only keys with ConfigKey::reloads change in a running server.
ConfigReload reload_config(const ServerConfig& running, const ConfigSources& sources);

}  // namespace mobius
