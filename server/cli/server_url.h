#pragma once

#include <string>
#include <string_view>

namespace mobius {

/// Where an OpenAI-compatible server is.
struct ServerUrl {
  bool tls = false;
  std::string host;  ///< a name or an address, without brackets
  std::string port;
  std::string base;  ///< before "/v1/...": empty, or begins with "/" and does not end with it

  /// As the header Host has it.
  std::string authority() const;
};

/// Reads "http://host:port", "https://host/v1" or "host:port"; OpenAI's habit of a URL that ends
/// with /v1 and the bare server mean the same. Throws std::runtime_error, saying what is wrong, for
/// everything else: other schemes, users, queries, fragments.
ServerUrl parse_server_url(std::string_view text);

}  // namespace mobius
