#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/status.h"
#include "engine/tokenizer/tokenizer.h"

namespace mobius {

enum class ChatRole : std::uint8_t { system, user, assistant, tool };

/// The role of that name, if there is one. "developer" is another name of the system role.
std::optional<ChatRole> chat_role_named(std::string_view name);

/// A function call that the assistant made.
struct ChatToolCall {
  std::string id;  // the client's; the model does not see it
  std::string name;
  std::string arguments;  // a JSON object; empty means {}
};

struct ChatMessage {
  ChatRole role = ChatRole::user;
  std::string content;
  std::vector<ChatToolCall> tool_calls;  // assistant only
  std::string tool_call_id;              // tool only; the model does not see it
};

struct ChatTemplateOptions {
  std::string date_string = "26 Jul 2024";  // "Today Date" in the system message
  bool add_generation_prompt = true;        // ends with the assistant's header
  bool tools_in_user_message = true;        // else tool definitions go into the system message
  /// A prompt that leaves no room in it is refused as soon as that is certain.
  std::int32_t max_context = std::numeric_limits<std::int32_t>::max();
};

/// The prompt of a conversation, token for token what Meta's chat template of Llama 3.1 Instruct
/// gives, begin-of-text included. Thread-safe.
///
/// - `tools_json` holds one JSON object per tool, written into the prompt as it stands (keys in
///   their order, Python's json.dumps formatting): pass what the client sent, OpenAI's
///   {"type": "function", "function": {...}} included. No tools and an empty list are the same.
/// - With tools in the user message, the first message that is not the system message carries them,
///   whatever its role, as in the official template.
/// - Texts that look like control tokens stay text, in every field.
/// - An assistant message with a tool call shows the call alone: the template drops its content.
/// - The template takes one call per message. Several are shown as messages of their own, each
///   followed by its result: of the tool messages behind, the one with the call's id (without ids:
///   the next).
///
/// Errors, with the field at fault: no messages; tools without a message that can carry them; tool
/// calls of another role than the assistant; definitions or arguments that are not a JSON object
/// (invalid_argument). Too many tokens: invalid_argument for the field "prompt". A vocabulary
/// without Llama 3's header tokens: failed_precondition.
StatusOr<std::vector<std::int32_t>> render_chat(const Tokenizer& tokenizer,
                                                std::span<const ChatMessage> messages,
                                                std::span<const std::string> tools_json,
                                                const ChatTemplateOptions& options);

}  // namespace mobius
