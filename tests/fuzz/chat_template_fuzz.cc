// A body of /v1/chat/completions, its messages and tools through the chat template.
#include <algorithm>

#include "server/chat_template.h"
#include "server/http/openai_request.h"
#include "tests/fuzz/target.h"
#include "tests/unit/tokenizer/fixtures.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace mobius;
  static const std::shared_ptr<const Tokenizer> tokenizer = load_json(small_tokenizer());
  const StatusOr<OpenAiRequest> request = parse_chat_request(as_text(data, size));
  if (!request.ok()) return 0;
  const auto& input = std::get<ChatInput>(request.value().input);
  const auto prompt = render_chat(*tokenizer, input.messages, input.tools_json, {});
  if (!prompt.ok()) {
    require_one_line(prompt.status().message());
    return 0;
  }
  // A client cannot open or close a turn: control tokens come from the template alone.
  std::size_t headers = 0;
  std::size_t ends = 0;
  for (const std::int32_t token : prompt.value()) {
    if (token == tokenizer->special("<|start_header_id|>")) ++headers;
    if (token == tokenizer->special("<|eot_id|>")) ++ends;
  }
  // The system message is there in any case, and the assistant's header is left open.
  const bool has_system = !input.messages.empty() && input.messages[0].role == ChatRole::system;
  std::size_t turns = has_system ? 0U : 1U;
  for (const ChatMessage& message : input.messages) {
    turns += std::max<std::size_t>(message.tool_calls.size(), 1);
  }
  require(headers == turns + 1U, "one header for each message and each call");
  require(ends + 1 == headers, "one end for each message");
  return 0;
}
