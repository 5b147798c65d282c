#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/status.h"

namespace mobius {

/// Which pages of other origins a browser may let use the server (https://fetch.spec.whatwg.org,
/// "CORS protocol"). Header lines have their ends.
class CorsPolicy {
 public:
  /// Of http.cors_origins, which check_config has found valid; empty: none.
  explicit CorsPolicy(std::string_view origins);

  bool allows(std::string_view origin) const;
  /// For every answer to a request with this Origin field, which may be empty.
  std::string headers(std::string_view origin) const;
  /// For the answer to a browser's question beforehand; `wanted` is its field
  /// Access-Control-Request-Headers.
  static std::string preflight_headers(std::string_view wanted);

  /// Permission denied where a browser says that the page behind a request is neither ours (`host`
  /// is the Host field) nor an allowed one. Without this, any page could have a browser on this
  /// machine start work here, though it could not read the answer.
  Status check_origin(std::string_view origin, std::string_view host) const;

 private:
  std::vector<std::string> origins_;
  bool any_ = false;
};

}  // namespace mobius
