#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "mobius/v1/mobius.pb.h"
#include "server/grpc/call_context.h"

namespace mobius {

/// The calls of mobius.v1 that generate. Messages and context live until gRPC is done with the
/// reactor, which ends itself then.

grpc::ServerWriteReactor<v1::GenerateResponse>* generate_call(grpc::CallbackServerContext& context,
                                                              CallContext& shared,
                                                              const v1::GenerateRequest& request);
grpc::ServerWriteReactor<v1::GenerateResponse>* chat_call(grpc::CallbackServerContext& context,
                                                          CallContext& shared,
                                                          const v1::ChatRequest& request);

}  // namespace mobius
