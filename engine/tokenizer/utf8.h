#pragma once

#include <cstddef>
#include <string_view>

namespace mobius {

/// What the first bytes of a text are, read as UTF-8.
struct Utf8Step {
  enum class Kind : unsigned char { valid, invalid, incomplete };
  Kind kind = Kind::valid;
  /// valid: bytes of the character. invalid: bytes of the maximal ill-formed subpart (Unicode 15,
  /// section 3.9). incomplete: all bytes left, which more bytes may turn into a character.
  std::size_t length = 0;
  /// The character if valid.
  char32_t code_point = 0;
};

/// Reads one character from a text that is not empty. Overlong forms, surrogates and values above
/// U+10FFFF are invalid (Unicode 15, table 3-7).
Utf8Step utf8_step(std::string_view text);

/// Length of the longest prefix that is valid UTF-8; fast where the text is ASCII.
std::size_t utf8_valid_prefix(std::string_view text);

}  // namespace mobius
