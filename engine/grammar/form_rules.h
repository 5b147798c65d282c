#pragma once

#include <optional>

#include "engine/grammar/automaton.h"
#include "engine/grammar/grammar.h"
#include "engine/grammar/json_rules.h"

namespace mobius {

/// What a grammar's texts are: `values` and, where the forms have it, `other`.
GrammarRule add_forms(Automaton& automaton, const JsonRules& rules, const GrammarForms& forms,
                      GrammarRule values, std::optional<GrammarRule> other);

}  // namespace mobius
