#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "server/generation_service.h"

namespace mobius {

class JsonFields;

enum class OpenAiEndpoint : std::uint8_t { completions, chat, responses };

/// What the clients of an endpoint call things that have another name in GenerationOptions.
struct OpenAiNames {
  OpenAiEndpoint endpoint = OpenAiEndpoint::completions;
  bool max_completion_tokens = false;  ///< a chat client's name for max_tokens
  bool priority = false;               ///< vLLM's place for it, outside of `mobius`
};

/// A parsed body of a generating endpoint: what to generate, and how to answer.
struct OpenAiRequest {
  Input input;
  bool stream = false;
  bool include_usage = false;
  bool echo = false;  ///< the prompt begins the answer
  /// vLLM's member: the answer lists its prompt's tokens with so many alternatives.
  std::optional<std::int64_t> prompt_logprobs = {};
  /// /v1/responses: a JSON object of the members that the answer repeats.
  std::string response_members = {};
  OpenAiNames names = {};

  GenerationOptions& options() {
    return std::visit([](auto& in) -> GenerationOptions& { return in.options; }, input);
  }
  const GenerationOptions& options() const {
    return std::visit([](const auto& in) -> const GenerationOptions& { return in.options; }, input);
  }
};

/// Parse a body. Types are strict; ranges are the generation service's. Fields that cannot change
/// the answer are ignored, fields that would and are not supported are refused by name, and so are
/// unknown ones. Thread-safe.
StatusOr<OpenAiRequest> parse_chat_request(std::string_view body);
StatusOr<OpenAiRequest> parse_completion_request(std::string_view body);
StatusOr<OpenAiRequest> parse_responses_request(std::string_view body);
/// The one of an endpoint.
StatusOr<OpenAiRequest> parse_request(OpenAiEndpoint endpoint, std::string_view body);

/// Reads the members of a chat request that become its prompt: messages, tools and tool_choice.
void read_chat_prompt(JsonFields& fields, ChatInput& input, Status& status);

/// A status of the generation service, its field named as the client did.
Status with_names(const Status& status, const OpenAiNames& names);

}  // namespace mobius
