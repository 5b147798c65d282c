#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "server/grpc/call_context.h"
#include "server/grpc/vllm_convert.h"

namespace mobius {

/// The calls of vLLM's engine service, over what mobius.v1 uses too: the same keys, limits and log.
/// Messages and context live until gRPC is done with the reactor.

grpc::ServerWriteReactor<vllm_api::GenerateResponse>* vllm_generate_call(
    grpc::CallbackServerContext& context, CallContext& shared,
    const vllm_api::GenerateRequest& request);
grpc::ServerUnaryReactor* vllm_health_call(grpc::CallbackServerContext& context,
                                           CallContext& shared,
                                           vllm_api::HealthCheckResponse& response);
grpc::ServerUnaryReactor* vllm_abort_call(grpc::CallbackServerContext& context, CallContext& shared,
                                          const vllm_api::AbortRequest& request);
grpc::ServerUnaryReactor* vllm_model_info_call(grpc::CallbackServerContext& context,
                                               CallContext& shared,
                                               vllm_api::GetModelInfoResponse& response);
grpc::ServerUnaryReactor* vllm_server_info_call(grpc::CallbackServerContext& context,
                                                CallContext& shared,
                                                vllm_api::GetServerInfoResponse& response);
grpc::ServerUnaryReactor* vllm_loads_call(grpc::CallbackServerContext& context, CallContext& shared,
                                          const vllm_api::GetLoadsRequest& request,
                                          vllm_api::GetLoadsResponse& response);
grpc::ServerWriteReactor<smg_api::GetTokenizerChunk>* vllm_tokenizer_call(
    grpc::CallbackServerContext& context, CallContext& shared);

}  // namespace mobius
