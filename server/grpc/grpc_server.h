#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "server/config/config.h"
#include "server/generation_service.h"
#include "server/security/certificates.h"
#include "server/security/key_store.h"

namespace mobius {

struct GrpcOptions {
  ServerConfig::Grpc grpc;
  const KeyStore& keys;  ///< must outlive the server, and so must the next
  const Certificates& certificates;
};

/// Keeps gRPC's own messages off standard error: what matters reaches our log or the caller. Call
/// before anything else of gRPC, and before threads exist. GRPC_VERBOSITY, where it is set, wins.
void quiet_grpc();

/// The gRPC front end: mobius.v1.Mobius, vllm.grpc.engine.VllmEngine, grpc.health.v1.Health and
/// reflection, on gRPC's own threads. All functions are for one controlling thread.
class GrpcServer {
 public:
  /// Binds and starts to answer. `service` must outlive this. Throws std::runtime_error with one
  /// line if the address cannot be listened on.
  GrpcServer(const GrpcOptions& options, GenerationService& service);
  /// Cancels what still runs, and waits for its end.
  ~GrpcServer();
  GrpcServer(const GrpcServer&) = delete;
  GrpcServer& operator=(const GrpcServer&) = delete;

  /// The port that it listens on.
  std::uint16_t port() const;

  /// What the health service says of both services and of the server as a whole.
  void set_serving(bool serving);

  /// Waits until no generation is being answered (health watches may go on). False if that did not
  /// happen in time.
  bool wait_idle(std::chrono::steady_clock::time_point deadline);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mobius
