#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "server/config/config.h"

namespace mobius {

/// Asks the server that listens where `config` says for `path`, as health checks of containers do
/// that have no HTTP client. An address that means all interfaces is asked on loopback. Returns an
/// empty text if the answer is 200, else what went wrong. Each of connecting, sending and reading
/// may take `limit`. Where the server speaks TLS, so does the probe: it presents the server's own
/// certificate, for servers that ask for one, and believes whatever it is shown: it sends nothing
/// that anybody may not know.
std::string probe_http(const ServerConfig::Http& config, const ServerConfig::Tls& tls,
                       std::string_view path, std::chrono::seconds limit);

}  // namespace mobius
