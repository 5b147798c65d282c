#pragma once

#include <grpcpp/server_context.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "server/generation_options.h"
#include "server/log.h"
#include "server/security/key_store.h"

namespace mobius {

/// Who makes a call, from its metadata: "authorization" as in HTTP, "x-request-id" where the client
/// has a name for it, "traceparent" where it traces. The name, and "traceresponse" for a trace, go
/// back in the initial metadata, and into the log.
class CallAccess {
 public:
  /// `method`: for the log, a literal.
  CallAccess(grpc::CallbackServerContext& context, const char* method);

  /// Unauthenticated without a valid key; resource_exhausted where the key's limits are reached,
  /// with the standard trailing metadata for retries. Once, before anything of the call is done.
  /// `counted`: it is one of the requests that limits are about.
  Status admit(const KeyStore& keys, bool counted);

  Caller caller() const { return {request_id_, account_, trace_}; }

  /// The call's end: what to finish it with. The field that `status` names goes into the trailing
  /// metadata, and a line into the log; `level`: debug for what routers ask all the time.
  grpc::Status end(const Status& status, LogLevel level = LogLevel::info) const;

 private:
  using Clock = std::chrono::steady_clock;

  grpc::CallbackServerContext& context_;
  const char* const method_;
  const Clock::time_point started_ = Clock::now();
  std::string request_id_;
  TraceContext trace_;
  std::shared_ptr<KeyAccount> account_;
  std::optional<Admission> admission_;
};

}  // namespace mobius
