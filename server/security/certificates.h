#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "engine/status.h"
#include "server/config/config.h"

struct ssl_ctx_st;  // OpenSSL's SSL_CTX

namespace mobius {

/// A certificate and its key, found to belong together.
struct TlsMaterial {
  std::string certificate;  ///< PEM: the server's, then the chain towards its root
  std::string key;          ///< PEM
  std::string client_ca;    ///< PEM; empty: clients need no certificate
  std::string expires;      ///< for the log: "Nov 23 19:34:29 2027 GMT"
  /// For servers that use OpenSSL themselves: TLS 1.2 or newer, HTTP/1.1 in ALPN, a client's
  /// certificate verified where there is a client_ca.
  std::shared_ptr<ssl_ctx_st> context;
};

/// What TLS needs, read from the files that the configuration names. Thread-safe.
class Certificates {
 public:
  /// Throws std::runtime_error with one line where the files cannot be used.
  explicit Certificates(const ServerConfig::Tls& options);

  /// nullptr: connections are not encrypted. What a connection began with holds for its life.
  std::shared_ptr<const TlsMaterial> current() const;

  /// Reads the files again, for connections to come. On failure everything stays as it is.
  Status reload();

 private:
  const ServerConfig::Tls options_;
  mutable std::mutex mutex_;
  std::shared_ptr<const TlsMaterial> current_;
};

}  // namespace mobius
