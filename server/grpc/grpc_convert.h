#pragma once

#include <grpcpp/support/status.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "mobius/v1/mobius.pb.h"
#include "server/generation_service.h"
#include "server/tools/tool_call_parser.h"

namespace mobius {

/// Requests of the protocol as neutral ones. Presence is kept, values are checked by the service.
StatusOr<CompletionInput> to_input(const v1::GenerateRequest& request);
StatusOr<ChatInput> to_input(const v1::ChatRequest& request);
StatusOr<ChatInput> to_input(const v1::ChatPrompt& prompt);

/// Settings as a message has them.
v1::Attention to_message(const AttentionSettings& settings);

/// What an event's message depends on beside the event.
struct EventForm {
  const std::string& id;
  std::size_t choice = 0;
  std::uint64_t seed = 0;           ///< the choice's
  ToolCallParser* calls = nullptr;  ///< finds calls in the answer's text; nullptr: there are none
  bool with_logprobs = false;       ///< the request asked for them
  const Tokenizer& tokenizer;
};

/// An event as a message. A Finish must not be an error.
v1::GenerateResponse to_message(const Event& event, const EventForm& form);

/// Codes have gRPC's numbers already.
grpc::Status to_grpc(const Status& status);

/// A status of the generation service, its field named as the client's message has it. `prompt`:
/// what stands for the prompt there ("text", "tokens.ids", "messages").
Status with_grpc_names(const Status& status, const std::string& prompt);

}  // namespace mobius
