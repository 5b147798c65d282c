#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/tokenizer/tokenizer.h"

namespace mobius {

/// Turns a stream of tokens into a stream of valid UTF-8. A character that is split over tokens is
/// held back until it is whole; bytes that can never become one turn into U+FFFD, one for each
/// maximal ill-formed part (Unicode 15, section 3.9). Special tokens print nothing. Not
/// thread-safe.
class Detokenizer {
 public:
  /// `tokenizer` must outlive this.
  explicit Detokenizer(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  /// What became printable with this token; may be empty.
  std::string push(std::int32_t token);

  /// The rest, at the end of the stream.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  std::string pending_;
};

}  // namespace mobius
