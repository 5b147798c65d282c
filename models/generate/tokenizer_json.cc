#include "models/generate/tokenizer_json.h"

#include <array>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <unordered_set>
#include <utility>
#include <vector>

namespace mobius {
namespace {

using nlohmann::ordered_json;

constexpr std::int32_t kBytes = 256;
/// Vocabularies from this size on have all 256 special tokens, at their end.
constexpr std::int32_t kLargeVocabulary = 1024;
constexpr std::int32_t kAllSpecials = 256;

/// In the order of rank; "_" stands for a leading space.
constexpr std::array kMerges = {
    "_ t", "h e",  "_ a", "i n", "r e",   "_t he", "e r", "o n",  "_ s",  "a t",  "_ w",
    "_ o", "n d",  "i t", "i s", "o r",   "e s",   "e n", "_ b",  "e d",  "_o f", "_ c",
    "_ f", "in g", "_ m", "_ p", "_a nd", "a n",   "a l", "a r",  "_t o", "_ in", "o u",
    "_ d", "l e",  "l l", "o m", "_ h",   "i c",   "_ l", "s t",  "_ n",  "r o",  "v e",
    "_ y", "_ g",  "e l", "a s", "u t",   "_ e",   "i l", "_ it", "_ is",
};

/// Llama 3.1's special tokens in id order, as far as they have names of their own; the rest are
/// reserved.
constexpr std::array kSpecials = {
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_2|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
};
constexpr auto kNumMerges = static_cast<std::int32_t>(kMerges.size());
constexpr auto kNumSpecials = static_cast<std::int32_t>(kSpecials.size());

constexpr const char* kSplitPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

bool is_visible(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

std::string utf8(int code) {  // below U+0800
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

/// GPT-2's stand-ins for bytes in token order: visible bytes stand for themselves, the others for
/// the characters from U+0100 on.
std::vector<std::string> byte_symbols() {
  std::vector<std::string> symbols;
  for (int byte = 0; byte < kBytes; ++byte) {
    if (is_visible(byte)) symbols.push_back(utf8(byte));
  }
  for (int code = 0x100; symbols.size() < kBytes; ++code) symbols.push_back(utf8(code));
  return symbols;
}

std::int32_t num_specials(std::int32_t vocab_size) {
  return vocab_size >= kLargeVocabulary ? kAllSpecials : kNumSpecials;
}

std::int32_t first_special(std::int32_t vocab_size) {
  return vocab_size >= kLargeVocabulary ? vocab_size - kAllSpecials : kBytes + kNumMerges;
}

std::string special_name(std::int32_t index) {
  if (index < kNumSpecials) return kSpecials[static_cast<std::size_t>(index)];
  // Three reserved tokens lie among the named ones.
  return "<|reserved_special_token_" + std::to_string(index - kNumSpecials + 3) + "|>";
}

ordered_json added_tokens(std::int32_t vocab_size) {
  ordered_json tokens = ordered_json::array();
  for (std::int32_t i = 0; i < num_specials(vocab_size); ++i) {
    tokens.push_back({{"id", first_special(vocab_size) + i},
                      {"content", special_name(i)},
                      {"single_word", false},
                      {"lstrip", false},
                      {"rstrip", false},
                      {"normalized", false},
                      {"special", true}});
  }
  return tokens;
}

/// Tokens and merges of byte-level BPE, ids in the order of addition.
struct Vocabulary {
  // ordered_json's own insertion looks through all earlier keys; `known` does that faster.
  ordered_json::object_t tokens;
  ordered_json merges = ordered_json::array();
  std::unordered_set<std::string> known;

  std::int32_t size() const { return static_cast<std::int32_t>(tokens.size()); }

  void add(const std::string& token) {
    known.insert(token);
    const std::int32_t id = size();
    tokens.push_back({token, id});
  }

  void merge(const std::string& left, const std::string& right) {
    if (known.contains(left + right)) return;
    merges.push_back(left + ' ' + right);
    add(left + right);
  }
};

/// Exactly `size` tokens: bytes, English merges, then pairs and triples of bytes.
Vocabulary make_vocabulary(std::int32_t size) {
  const std::vector<std::string> bytes = byte_symbols();
  Vocabulary vocabulary;
  for (const std::string& symbol : bytes) vocabulary.add(symbol);
  for (std::string text : kMerges) {
    const std::size_t leading = text.find('_');
    if (leading != std::string::npos) text.replace(leading, 1, utf8(0x120));
    const std::size_t space = text.find(' ');
    vocabulary.merge(text.substr(0, space), text.substr(space + 1));
  }
  for (std::size_t length = 2; vocabulary.size() < size; ++length) {
    std::vector<std::string> stems = bytes;
    if (length == 3) {
      stems.clear();
      for (const std::string& a : bytes) {
        for (const std::string& b : bytes) stems.push_back(a + b);
      }
    }
    if (length > 3) throw std::invalid_argument("the vocabulary is too large");
    for (const std::string& stem : stems) {
      for (const std::string& byte : bytes) {
        if (vocabulary.size() == size) return vocabulary;
        vocabulary.merge(stem, byte);
      }
    }
  }
  return vocabulary;
}

ordered_json bpe_model(std::int32_t vocab_size) {
  Vocabulary vocabulary = make_vocabulary(first_special(vocab_size));
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", true},
          {"vocab", std::move(vocabulary.tokens)},
          {"merges", std::move(vocabulary.merges)}};
}

}  // namespace

std::int32_t smallest_vocabulary() {
  return kBytes + kNumMerges + kNumSpecials;
}

std::int32_t special_token_id(std::string_view name, std::int32_t vocab_size) {
  for (std::int32_t i = 0; i < num_specials(vocab_size); ++i) {
    if (special_name(i) == name) return first_special(vocab_size) + i;
  }
  throw std::invalid_argument("no special token " + std::string(name));
}

std::string tokenizer_json(std::int32_t vocab_size) {
  const std::string bos = special_name(0);
  const ordered_json template_bos = {{"SpecialToken", {{"id", bos}, {"type_id", 0}}}};
  const ordered_json template_text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  ordered_json document = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added_tokens(vocab_size)},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Split"},
           {"pattern", {{"Regex", kSplitPattern}}},
           {"behavior", "Isolated"},
           {"invert", false}},
          {{"type", "ByteLevel"},
           {"add_prefix_space", false},
           {"trim_offsets", true},
           {"use_regex", false}}}}}},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single", ordered_json::array({template_bos, template_text})},
        {"pair", ordered_json::array({template_bos, template_text, template_text})},
        {"special_tokens",
         {{bos,
           {{"id", bos},
            {"ids", ordered_json::array({first_special(vocab_size)})},
            {"tokens", ordered_json::array({bos})}}}}}}},
      {"decoder",
       {{"type", "ByteLevel"},
        {"add_prefix_space", true},
        {"trim_offsets", true},
        {"use_regex", true}}},
      {"model", bpe_model(vocab_size)}};
  return document.dump(1, ' ') + "\n";
}

bool is_printable(std::int32_t token) {
  constexpr std::int32_t kVisibleAscii = 0x7E - 0x21 + 1;  // ids 0 to 93
  return token < kVisibleAscii || (token >= kBytes && token < kBytes + kNumMerges);
}

}  // namespace mobius
