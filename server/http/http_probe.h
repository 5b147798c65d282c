#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "server/config/config.h"

namespace mobius {

/// Asks the server that listens where `config` says for `path`, as health checks of containers do
/// that have no HTTP client. An address that means all interfaces is asked on loopback. Returns an
/// empty text if the answer is 200, else what went wrong. Each of connecting, sending and reading
/// may take `limit`.
std::string probe_http(const ServerConfig::Http& config, std::string_view path,
                       std::chrono::seconds limit);

}  // namespace mobius
