#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/grammar/automaton.h"
#include "engine/grammar/json_rules.h"
#include "engine/grammar/pattern.h"

namespace mobius {

// The rules that a schema's parts become, once it is clear what they say.

/// One of the texts as it stands.
GrammarRule add_texts(Automaton& automaton, std::vector<std::string> texts);

/// One of the rules.
GrammarRule add_choice(Automaton& automaton, std::span<const GrammarRule> rules);

/// A string of `least` to `most` characters (none: without bound), of all of which `pattern` is the
/// automaton if there is one.
GrammarRule add_string(Automaton& automaton, const JsonRules& rules, std::size_t least,
                       std::optional<std::size_t> most, const PatternAutomaton* pattern);

struct PropertyRule {
  std::string name;
  GrammarRule value = 0;
  bool required = false;
};

/// An object with the properties in this order, then, if `others` is given, any number of others
/// with such values, none of which has one of the names.
GrammarRule add_object(Automaton& automaton, const JsonRules& rules,
                       std::span<const PropertyRule> properties, std::optional<GrammarRule> others);

/// An array of `least` to `most` items (none: without bound): those of `first` and then `others`.
/// Without `others`, no more than those.
GrammarRule add_array(Automaton& automaton, const JsonRules& rules,
                      std::span<const GrammarRule> first, std::optional<GrammarRule> others,
                      std::size_t least, std::optional<std::size_t> most);

}  // namespace mobius
