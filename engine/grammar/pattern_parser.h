#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/grammar/json_rules.h"

namespace mobius {

/// A regular expression as a tree.
struct PatternNode {
  enum class Kind : std::uint8_t { set, sequence, choice, repeat };
  Kind kind = Kind::sequence;
  CodePoints set;                     ///< set: one code point out of it; may be empty
  std::vector<PatternNode> children;  ///< repeat: one
  int least = 0;                      ///< repeat
  int most = -1;                      ///< repeat; -1: without bound
};

/// Parses a pattern into a tree of whole texts: where it is not anchored, anything comes before or
/// after. False, with what is wrong in `error`.
bool parse_pattern(std::string_view pattern, PatternNode& root, std::string& error);

/// Orders ranges and joins those that touch.
CodePoints normal(CodePoints set);
/// All code points that are not in a normal set.
CodePoints complement(const CodePoints& set);

}  // namespace mobius
