#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/tokenizer/bpe.h"

namespace mobius {

/// What a tokenizer's file says, checked: every id from 0 on has a token, every byte has one, every
/// merge's tokens exist and every pair merges in one way only.
struct Vocabulary {
  std::vector<std::string> tokens;  // by id: a token's bytes, an added token's text
  std::vector<std::int32_t> added;  // ids of tokens that text never becomes
  std::vector<bool> special;        // by id: prints nothing
  std::vector<BpeMerge> merges;
  std::array<std::int32_t, 256> byte_tokens{};
  bool whole_pieces = false;  // a piece that is a token is taken at once, merges or not
  std::string split_regex;    // written for Oniguruma
};

/// Reads Hugging Face's `tokenizer.json`. Throws std::runtime_error: what is wrong, without the
/// path.
Vocabulary read_tokenizer_json(const std::filesystem::path& file);

/// Reads tiktoken's `tokenizer.model`, lines of a token in base64 and its rank, and adds the 256
/// special tokens of Llama 3.1. Throws std::runtime_error: what is wrong, without the path.
Vocabulary read_tiktoken_model(const std::filesystem::path& file);

/// The whole file. Throws std::runtime_error if it cannot be read.
std::string read_tokenizer_file(const std::filesystem::path& file);

/// Fills byte_tokens from the tokens. Throws std::runtime_error if a byte has none.
void find_byte_tokens(Vocabulary& vocabulary);

}  // namespace mobius
