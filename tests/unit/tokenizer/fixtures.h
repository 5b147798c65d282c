#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "tests/scratch_folder.h"

namespace mobius {

/// Llama 3's split pattern.
extern const std::string kLlama3Split;

/// A byte as byte-level BPE's files write it.
std::string byte_level(std::string_view bytes);

/// A tokenizer.json with a token for each byte (its id), a few English merges and Llama 3's header
/// tokens behind them. Merges are written as "a b"; ignore_merges is off.
nlohmann::json small_tokenizer();

/// Loads a tokenizer.json.
std::shared_ptr<const Tokenizer> load_json(const nlohmann::json& file);

std::vector<std::int32_t> encode(const Tokenizer& tokenizer, std::string_view text);

/// MOBIUS_TEST_DATA, by default ../shared/data beside the sources.
std::filesystem::path test_data();

}  // namespace mobius
