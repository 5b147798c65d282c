#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mobius {

/// Vocabulary of generated checkpoints: the 256 bytes in GPT-2's order, a few English merges, and
/// Llama 3's special tokens. With 1,024 tokens or more there are 256 special tokens, the last of
/// the vocabulary, with the ids that Llama 3.1 gives them when the vocabulary has 128,256, and
/// strings of two and three bytes fill the ids before them; a smaller one has the eleven named ones
/// right after the merges.
std::int32_t smallest_vocabulary();

/// Id of a special token. Throws std::invalid_argument for an unknown name.
std::int32_t special_token_id(std::string_view name, std::int32_t vocab_size);

/// tokenizer.json in Hugging Face's format: byte-level BPE with Llama 3's split pattern.
std::string tokenizer_json(std::int32_t vocab_size);

/// True for tokens that print one ASCII character or English letters.
bool is_printable(std::int32_t token);

}  // namespace mobius
