#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/config/config.h"

namespace mobius {

/// The variable that sets a key: "MOBIUS_HTTP_PORT" for "http.port".
std::string environment_name(std::string_view key);

/// MOBIUS_CONFIG; empty if it is not set.
std::string environment_config_file();

/// The keys that this process's environment sets, in the schema's order. Empty variables count as
/// not set: compose files cannot leave one out. Variables of no key are not ours to judge;
/// Kubernetes makes some for a service named "mobius". Not safe beside setenv in another thread.
std::vector<ConfigOverride> environment_overrides();

}  // namespace mobius
