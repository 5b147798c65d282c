#include "server/http/http_cors.h"

#include <algorithm>
#include <boost/beast/core/string.hpp>

#include "server/config/config.h"
#include "server/json.h"

namespace mobius {

CorsPolicy::CorsPolicy(std::string_view origins) : origins_(split_list(origins)) {
  any_ = origins_ == std::vector<std::string>{"*"};
}

bool CorsPolicy::allows(std::string_view origin) const {
  if (origin.empty()) return false;
  return any_ || std::find(origins_.begin(), origins_.end(), origin) != origins_.end();
}

std::string CorsPolicy::headers(std::string_view origin) const {
  if (origins_.empty()) return {};
  // Caches must not hand one origin's answer to another.
  std::string lines = any_ ? "" : "Vary: Origin\r\n";
  if (!allows(origin)) return lines;
  lines += "Access-Control-Allow-Origin: " + (any_ ? std::string("*") : std::string(origin));
  lines += "\r\nAccess-Control-Expose-Headers: x-request-id, traceresponse, Retry-After\r\n";
  return lines;
}

std::string CorsPolicy::preflight_headers(std::string_view wanted) {
  const bool plain = std::all_of(wanted.begin(), wanted.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("-_, ").find(c) != std::string_view::npos;
  });
  std::string lines = "Access-Control-Allow-Methods: GET, POST\r\nAccess-Control-Max-Age: 600\r\n";
  // Whatever the page wants to send: OpenAI's client for browsers has fields of its own.
  if (plain && !wanted.empty()) {
    lines.append("Access-Control-Allow-Headers: ").append(wanted).append("\r\n");
  }
  return lines;
}

Status CorsPolicy::check_origin(std::string_view origin, std::string_view host) const {
  if (origin.empty() || allows(origin)) return {};
  const std::size_t scheme = origin.find("://");
  if (scheme != std::string_view::npos && !host.empty() &&
      boost::beast::iequals(origin.substr(scheme + 3), host)) {
    return {};
  }
  return {StatusCode::permission_denied,
          "pages of " + brief_text(origin, 128) + " may not use this server (http.cors_origins)"};
}

}  // namespace mobius
