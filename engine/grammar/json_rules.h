#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/grammar/automaton.h"

namespace mobius {

// JSON's digits are without bound, a number's meaning is not: these keep every number finite as a
// double, and a model from writing one without end.
inline constexpr int kMaxIntegerDigits = 18;
inline constexpr int kMaxFractionDigits = 17;
inline constexpr int kMaxExponentDigits = 2;
/// Spaces after a line break; without one there is at most one space.
inline constexpr int kMaxIndent = 32;

/// What every grammar of JSON begins with, in the same states: what was found out about them once
/// holds for all grammars.
struct JsonRules {
  GrammarRule space = 0;   ///< nothing, a space, or a line break and an indent
  GrammarRule escape = 0;  ///< what follows a backslash in a string
  GrammarRule string = 0;
  GrammarRule integer = 0;
  GrammarRule number = 0;
  GrammarRule boolean = 0;
  GrammarRule null = 0;
  GrammarRule value = 0;
  GrammarRule object = 0;
  GrammarRule array = 0;
  GrammarRule text = 0;  ///< valid UTF-8 that does not begin, white space left out, with '{'
};

/// Adds them to an automaton that is empty.
JsonRules add_json_rules(Automaton& automaton);

/// Edges for one character of a JSON string, RFC 8259, section 7, escaped or not. They are not a
/// rule of their own: where a rule ends after each character, no token of several would be
/// independent of what lies below it.
void add_string_char(Automaton& automaton, const JsonRules& rules, GrammarState from,
                     GrammarState to);

/// Edges for one character of two to four bytes of UTF-8, surrogates left out.
void add_multi_byte(Automaton& automaton, GrammarState from, GrammarState to);

/// Ranges of code points, first and last; ordered, apart from each other.
using CodePoints = std::vector<std::pair<char32_t, char32_t>>;

/// Edges for one code point out of `set`, as UTF-8 and as it stands in a JSON string: quote,
/// backslash and controls are escaped in their shortest way, everything else stands for itself.
/// Surrogates are left out.
void add_string_code_point(Automaton& automaton, GrammarState from, const CodePoints& set,
                           GrammarState to);

/// `text` as a JSON string with its quotes.
std::string json_string(const std::string& text);

/// Adds `digits` at most, `least` at least, from each of them to `to` without a byte.
void add_digits(Automaton& automaton, GrammarState from, int least, int most, GrammarState to);

}  // namespace mobius
