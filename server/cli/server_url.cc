#include "server/cli/server_url.h"

#include <algorithm>
#include <charconv>
#include <stdexcept>

#include "server/json.h"

namespace mobius {
namespace {

bool is_port(std::string_view text) {
  int port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port >= 1 && port <= 65535;
}

}  // namespace

std::string ServerUrl::authority() const {
  const std::string name = host.find(':') != std::string::npos ? '[' + host + ']' : host;
  return port == (tls ? "443" : "80") ? name : name + ':' + port;
}

ServerUrl parse_server_url(std::string_view text) {
  const auto refuse = [&](std::string_view why) {
    throw std::runtime_error(brief_text(text) + ": " + std::string(why) +
                             "; write http://HOST:PORT");
  };
  ServerUrl url;
  std::string_view rest = text;
  if (const auto colon = rest.find("://"); colon != std::string_view::npos) {
    const std::string_view scheme = rest.substr(0, colon);
    if (scheme != "http" && scheme != "https") refuse("the scheme must be http or https");
    url.tls = scheme == "https";
    rest.remove_prefix(colon + 3);
  }
  const bool plain = std::ranges::all_of(rest, [](char c) { return c > 0x20 && c < 0x7F; });
  if (!plain || rest.find_first_of("@?#\"<>\\") != std::string_view::npos) {
    refuse("is no server's address");
  }
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view place = rest.substr(0, slash);
  std::string_view base = rest.substr(slash);
  while (base.ends_with('/')) base.remove_suffix(1);
  if (base.ends_with("/v1")) base.remove_suffix(3);
  while (base.ends_with('/')) base.remove_suffix(1);
  url.base = base;

  std::string_view port;
  if (place.starts_with('[')) {
    const std::size_t end = place.find(']');
    if (end == std::string_view::npos) refuse("an address in [ has no ]");
    url.host = place.substr(1, end - 1);
    place.remove_prefix(end + 1);
    if (!place.empty() && !place.starts_with(':')) refuse("after ] comes a port");
    port = place.empty() ? place : place.substr(1);
    if (!place.empty() && !is_port(port)) refuse("the port must be from 1 to 65535");
  } else {
    const std::size_t colon = place.find(':');
    url.host = place.substr(0, colon);
    if (colon != std::string_view::npos) {
      port = place.substr(colon + 1);
      if (!is_port(port)) refuse("the port must be from 1 to 65535");
    }
  }
  if (url.host.empty()) refuse("names no host");
  url.port = port.empty() ? (url.tls ? "443" : "80") : std::string(port);
  return url;
}

}  // namespace mobius
