#pragma once

#include <nlohmann/json.hpp>

namespace mobius {

/// Whether a value meets a JSON Schema, by the specification's words, slowly: the judge of what the
/// compiled grammars produce. oneOf counts as anyOf, formats are not looked at.
bool meets(const nlohmann::ordered_json& value, const nlohmann::ordered_json& schema,
           const nlohmann::ordered_json& root);

}  // namespace mobius
