#include "engine/tokenizer/vocabulary.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <unordered_map>

namespace mobius {
namespace {

// Llama 3's, from Meta's tokenizer.py.
constexpr std::string_view kLlama3Split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::size_t kLlama3Specials = 256;

// A rank must fit an id, and no vocabulary comes near this.
constexpr std::size_t kMostTokens = std::size_t{1} << 24;

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(what);
}

/// Llama 3.1's special tokens in the order of their ids; the unnamed ones are numbered through.
std::vector<std::string> llama31_specials() {
  const std::unordered_map<std::size_t, std::string_view> named = {
      {0, "<|begin_of_text|>"},   {1, "<|end_of_text|>"},   {4, "<|finetune_right_pad_id|>"},
      {6, "<|start_header_id|>"}, {7, "<|end_header_id|>"}, {8, "<|eom_id|>"},
      {9, "<|eot_id|>"},          {10, "<|python_tag|>"},
  };
  std::vector<std::string> out;
  std::size_t reserved = 0;
  for (std::size_t i = 0; i < kLlama3Specials; ++i) {
    const auto found = named.find(i);
    out.push_back(found != named.end()
                      ? std::string(found->second)
                      : "<|reserved_special_token_" + std::to_string(reserved++) + "|>");
  }
  return out;
}

int base64_value(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/// Base64 with its padding (RFC 4648, section 4), or nothing.
std::optional<std::string> from_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  std::size_t padding = 0;
  while (padding < 2 && text.ends_with('=')) {
    text.remove_suffix(1);
    ++padding;
  }
  std::string out;
  std::uint32_t bits = 0;
  int held = 0;
  for (const char c : text) {
    const int value = base64_value(c);
    if (value < 0) return std::nullopt;
    bits = (bits << 6) | static_cast<std::uint32_t>(value);
    held += 6;
    if (held >= 8) {
      held -= 8;
      out += static_cast<char>((bits >> held) & 0xFFu);
    }
  }
  if ((bits & ((1u << held) - 1u)) != 0) return std::nullopt;  // bits that no byte holds
  return out;
}

/// The tokens of all lines by rank.
std::vector<std::string> parse_ranks(std::string_view text) {
  std::vector<std::pair<std::string, std::size_t>> lines;
  std::size_t number = 0;
  while (!text.empty()) {
    ++number;
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;

    const std::string where = "line " + std::to_string(number);
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos) {
      fail(where + " is not a token in base64 and its rank (only tiktoken's format is supported)");
    }
    std::optional<std::string> token = from_base64(line.substr(0, space));
    if (!token) fail(where + ": the token is not base64");
    const std::string_view digits = line.substr(space + 1);
    std::size_t rank = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
    if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size() ||
        rank >= kMostTokens) {
      fail(where + ": the rank is not a number from 0 to " + std::to_string(kMostTokens - 1));
    }
    lines.emplace_back(std::move(*token), rank);
  }
  if (lines.empty()) fail("the file has no tokens");

  std::vector<std::string> tokens(lines.size());
  for (auto& [token, rank] : lines) {
    if (rank >= tokens.size()) {
      fail("rank " + std::to_string(rank) + " leaves a gap: there are " +
           std::to_string(tokens.size()) + " tokens");
    }
    if (!tokens[rank].empty()) fail("rank " + std::to_string(rank) + " stands twice");
    tokens[rank] = std::move(token);
  }
  return tokens;
}

/// tiktoken merges any two neighbours that together are a token, the lowest token first.
std::vector<BpeMerge> all_merges(const std::vector<std::string>& tokens) {
  std::unordered_map<std::string_view, std::int32_t> ids;
  ids.reserve(tokens.size());
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    if (!ids.emplace(tokens[id], static_cast<std::int32_t>(id)).second) {
      fail("the tokens of ranks " + std::to_string(ids[tokens[id]]) + " and " + std::to_string(id) +
           " are the same");
    }
  }
  std::vector<BpeMerge> merges;
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    const std::string_view token = tokens[id];
    for (std::size_t cut = 1; cut < token.size(); ++cut) {
      const auto left = ids.find(token.substr(0, cut));
      if (left == ids.end()) continue;
      const auto right = ids.find(token.substr(cut));
      if (right == ids.end()) continue;
      const auto rank = static_cast<std::int32_t>(id);
      merges.push_back({left->second, right->second, rank, rank});
    }
  }
  return merges;
}

}  // namespace

std::string read_tokenizer_file(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) fail("cannot be opened");
  std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (stream.bad()) fail("cannot be read");
  return text;
}

void find_byte_tokens(Vocabulary& vocabulary) {
  vocabulary.byte_tokens.fill(-1);
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& token = vocabulary.tokens[id];
    if (token.size() != 1) continue;
    vocabulary.byte_tokens[static_cast<unsigned char>(token[0])] = static_cast<std::int32_t>(id);
  }
  for (std::size_t byte = 0; byte < vocabulary.byte_tokens.size(); ++byte) {
    if (vocabulary.byte_tokens[byte] >= 0) continue;
    fail("the vocabulary has no token for byte " + std::to_string(byte));
  }
}

Vocabulary read_tiktoken_model(const std::filesystem::path& file) {
  Vocabulary out;
  out.split_regex = kLlama3Split;
  out.whole_pieces = true;
  out.tokens = parse_ranks(read_tokenizer_file(file));
  out.merges = all_merges(out.tokens);
  find_byte_tokens(out);
  out.special.resize(out.tokens.size());
  for (std::string& name : llama31_specials()) {
    out.added.push_back(static_cast<std::int32_t>(out.tokens.size()));
    out.tokens.push_back(std::move(name));
    out.special.push_back(true);
  }
  return out;
}

}  // namespace mobius
