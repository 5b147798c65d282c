#pragma once

#include <string>
#include <string_view>

#include "server/generation_service.h"

namespace mobius {

/// Bodies in, bodies out, after vLLM's endpoints of the same paths. All of these take as long as
/// tokenization does; bodies have at most 8 MiB. Unknown members are refused by name.

/// {"prompt": text} with "add_special_tokens" (default true: a begin-of-text first), or what a
/// chat's prompt is made of ("messages", "tools"); "return_token_strs" adds the texts of up to
/// 131,072 tokens. -> {"count", "max_model_len", "tokens", "token_strs"}
StatusOr<std::string> answer_tokenize(const GenerationService& service, std::string_view body);

/// {"tokens": ids} -> {"prompt": text}; special tokens by name, bytes that are no UTF-8 replaced.
StatusOr<std::string> answer_detokenize(const GenerationService& service, std::string_view body);

/// A chat completion's body -> {"prompt", "token_ids", "count"}: what the model would be given.
StatusOr<std::string> answer_render(const GenerationService& service, std::string_view body);

}  // namespace mobius
