#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mobius {

/// Byte-level BPE with a split pattern, as Llama 3 has it. Immutable once loaded: all functions may
/// be called from any thread.
class Tokenizer {
 public:
  /// Loads `tokenizer.json` (Hugging Face) or else `tokenizer.model` (tiktoken ranks) from a
  /// checkpoint folder. Throws std::runtime_error with one line naming the file and what is wrong.
  static std::shared_ptr<const Tokenizer> load(const std::filesystem::path& folder);

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// Appends the tokens of plain text to `out`. Any bytes are allowed, valid UTF-8 or not, and
  /// decode back to themselves. Text that looks like a special token stays text. Returns the length
  /// of `out`.
  ///
  /// No work is done for what is too long anyway: where `out` would have more than `most` tokens,
  /// returns, as soon as that is certain, a number above `most` that it would have at least; `out`
  /// then ends somewhere. Certain from the start is what is longer than `most` of the longest
  /// token.
  std::size_t encode(std::string_view text, std::vector<std::int32_t>& out,
                     std::size_t most = std::numeric_limits<std::size_t>::max()) const;

  /// The id of a special token such as "<|eot_id|>", if the vocabulary has it.
  std::optional<std::int32_t> special(std::string_view name) const;
  bool is_special(std::int32_t token) const;

  /// The bytes of one token; a special token's name; empty for an id without an entry. The view
  /// lives as long as the tokenizer.
  std::string_view bytes(std::int32_t token) const;

  /// Bytes of all tokens; special tokens are left out unless asked for. May end in part of a
  /// character: stream through a Detokenizer instead.
  std::string decode(std::span<const std::int32_t> tokens, bool with_special = false) const;

  /// One more than the highest id.
  std::int32_t vocab_size() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mobius
