#include "tests/unit/tokenizer/fixtures.h"

#include <cstdlib>

namespace mobius {

using nlohmann::json;

const std::string kLlama3Split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::string byte_level(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    unsigned code = byte;
    if (byte <= 0x20) {
      code = 0x100u + byte;
    } else if (byte >= 0x7F && byte <= 0xA0) {
      code = 0x121u + (byte - 0x7Fu);
    } else if (byte == 0xAD) {
      code = 0x143;
    }
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else {
      out += static_cast<char>(0xC0u | (code >> 6));
      out += static_cast<char>(0x80u | (code & 0x3Fu));
    }
  }
  return out;
}

json small_tokenizer() {
  json vocab = json::object();
  json merges = json::array();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[byte_level(std::string(1, static_cast<char>(byte)))] = byte;
  }
  const std::vector<std::pair<std::string, std::string>> pairs = {
      {"h", "e"},   {"l", "l"},       {"he", "ll"}, {"hell", "o"}, {" ", "hello"},
      {"l", "o"},   {" ", " "},       {"  ", "  "}, {"\n", "\n"},  {"a", "a"},
      {"aa", "aa"}, {"\xC3", "\xA9"}, {"1", "2"},   {"12", "3"},   {" ", "w"},
      {" w", "o"},  {"r", "l"},       {"rl", "d"},  {" wo", "rld"}};
  for (const auto& [left, right] : pairs) {
    vocab[byte_level(left + right)] = vocab.size();
    merges.push_back(byte_level(left) + " " + byte_level(right));
  }
  json added = json::array();
  for (const char* name : {"<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                           "<|end_header_id|>", "<|eot_id|>"}) {
    added.push_back({{"id", vocab.size() + added.size()}, {"content", name}, {"special", true}});
  }
  return {
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Split"},
           {"pattern", {{"Regex", kLlama3Split}}},
           {"behavior", "Isolated"},
           {"invert", false}},
          {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}, {"ignore_merges", false}}}};
}

std::shared_ptr<const Tokenizer> load_json(const json& file) {
  const ScratchFolder folder;
  folder.write("tokenizer.json", file.dump());
  return Tokenizer::load(folder.path());
}

std::vector<std::int32_t> encode(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::int32_t> out;
  tokenizer.encode(text, out);
  return out;
}

std::filesystem::path test_data() {
  const char* folder = std::getenv("MOBIUS_TEST_DATA");
  return folder != nullptr ? std::filesystem::path(folder)
                           : std::filesystem::path(MOBIUS_SOURCE_DIR) / ".." / "shared" / "data";
}

}  // namespace mobius
