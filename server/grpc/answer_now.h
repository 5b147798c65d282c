#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "server/grpc/call_access.h"
#include "server/grpc/call_context.h"

namespace mobius {

/// A call that is answered at once and costs nothing. `answer(access)` returns its status.
template <typename Answer>
grpc::ServerUnaryReactor* answer_now(grpc::CallbackServerContext& context, CallContext& shared,
                                     const char* method, LogLevel level, const Answer& answer) {
  CallAccess access(context, method);
  Status status = access.admit(shared.keys, /*counted=*/false);
  if (status.ok()) status = answer(access);
  grpc::ServerUnaryReactor* const reactor = context.DefaultReactor();
  reactor->Finish(access.end(status, level));
  return reactor;
}

}  // namespace mobius
