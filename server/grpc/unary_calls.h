#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "mobius/v1/mobius.pb.h"
#include "server/grpc/call_context.h"

namespace mobius {

/// The calls of mobius.v1 that have one answer. Messages and context live until gRPC is done with
/// the reactor.

/// On a thread for that: it takes as long as the text is long.
grpc::ServerUnaryReactor* tokenize_call(grpc::CallbackServerContext& context, CallContext& shared,
                                        const v1::TokenizeRequest& request,
                                        v1::TokenizeResponse& response);
grpc::ServerUnaryReactor* model_info_call(grpc::CallbackServerContext& context, CallContext& shared,
                                          v1::GetModelInfoResponse& response);
grpc::ServerUnaryReactor* load_call(grpc::CallbackServerContext& context, CallContext& shared,
                                    v1::GetLoadResponse& response);
grpc::ServerUnaryReactor* abort_call(grpc::CallbackServerContext& context, CallContext& shared,
                                     const v1::AbortRequest& request);

}  // namespace mobius
