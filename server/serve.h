#pragma once

#include <functional>
#include <memory>

#include "models/runner.h"
#include "server/config/config.h"
#include "server/config/sources.h"

namespace mobius {

/// Called with the loaded model before anything is asked of it; what it returns is asked instead.
/// For tests of what happens when a device fails.
using WrapRunner = std::function<std::unique_ptr<Runner>(std::unique_ptr<Runner>)>;

/// Runs the server until a signal or a failed model ends it, and returns the exit code. Throws
/// std::exception with one line where it cannot start.
int serve(const ServerConfig& config, const ConfigSources& sources, const WrapRunner& wrap = {});

}  // namespace mobius
