#pragma once

#include <cstdint>
#include <memory>

#include "server/generation_service.h"
#include "server/grpc/event_writer.h"
#include "vllm/vllm_engine.pb.h"

namespace mobius {

/// vLLM's engine service, as far as proto/vllm/ has it.
namespace vllm_api = ::vllm::grpc::engine;
namespace smg_api = ::smg::grpc::common;

/// A request as a neutral one. Refuses by name what would change the answer and is not supported;
/// values are checked by the service. Numbers that are 0 where the protocol knows no absence are
/// defaults.
StatusOr<CompletionInput> to_input(const vllm_api::GenerateRequest& request,
                                   std::int32_t vocab_size = INT32_MAX);

/// `request` need not live on.
std::unique_ptr<EventWriter<vllm_api::GenerateResponse>> make_vllm_writer(
    const vllm_api::GenerateRequest& request);

}  // namespace mobius
