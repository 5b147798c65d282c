#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "engine/grammar/json_rules.h"

namespace mobius {

/// A deterministic automaton over code points. State 0 is the start.
struct PatternAutomaton {
  struct Edge {
    CodePoints set;
    std::size_t to = 0;
  };
  struct State {
    std::vector<Edge> edges;  ///< their sets have nothing in common
    bool final = false;
  };
  std::vector<State> states;
};

/// Compiles a regular expression (the subset of ECMA-262 in README.md). As JSON Schema has it, a
/// match anywhere in a text counts, unless anchored. `pattern` is valid UTF-8. False, with what is
/// wrong in `error`, where it is no such expression, needs more than `max_states` states or more
/// than `steps_left` steps (some ten nanoseconds each), of which it takes those that it needs.
bool compile_pattern(std::string_view pattern, std::size_t max_states, std::size_t& steps_left,
                     PatternAutomaton& out, std::string& error);

/// The expression of one of JSON Schema's formats; nullptr for those that this has none for.
const char* pattern_of_format(std::string_view format);
/// Names of those that it has, for messages.
std::string known_formats();

}  // namespace mobius
