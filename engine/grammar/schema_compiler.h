#pragma once

#include <nlohmann/json_fwd.hpp>

#include "engine/grammar/automaton.h"
#include "engine/grammar/grammar.h"
#include "engine/status.h"

namespace mobius {

/// The automaton of a schema's values in their forms, finished; its first states are the JsonRules.
/// Refuses as Grammar::json_schema says.
StatusOr<Automaton> compile_schema(const nlohmann::ordered_json& schema, const SchemaLimits& limits,
                                   const GrammarForms& forms);

}  // namespace mobius
