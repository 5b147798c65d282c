#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "server/config/config.h"
#include "server/generation_service.h"
#include "server/security/certificates.h"
#include "server/security/key_store.h"

namespace mobius {

struct HttpOptions {
  ServerConfig::Http http;
  const KeyStore& keys;  ///< must outlive the server, and so must the next
  const Certificates& certificates;
  bool metrics_need_key = false;
};

/// The HTTP front end. Runs on threads of its own, which never wait for computation, so health
/// answers whatever the engine does. All functions are for one controlling thread.
class HttpServer {
 public:
  /// Binds and starts to answer: without a service that /health is well and the rest is not there
  /// yet. Throws std::runtime_error with one line if the address cannot be listened on.
  explicit HttpServer(const HttpOptions& options);
  /// Closes every connection; their requests are cancelled.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  /// Answers everything from now on. `service` must outlive this. Once.
  void serve(GenerationService& service);

  /// The port that it listens on.
  std::uint16_t port() const;

  /// Takes no new connections, closes idle ones, and closes each of the others after the answer to
  /// the request that it has begun to send.
  void stop_accepting();
  /// Waits until no request is being read or answered. False if that did not happen in time.
  bool wait_idle(std::chrono::steady_clock::time_point deadline);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mobius
