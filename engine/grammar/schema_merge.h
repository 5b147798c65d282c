#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace mobius {

/// Adds to a JSON Schema what another asks for. Both are objects without $ref, allOf, anyOf and
/// oneOf. False, with the keyword that cannot be merged, where this knows of no schema that asks
/// for both.
bool merge_schema(nlohmann::ordered_json& into, const nlohmann::ordered_json& from,
                  std::string& keyword);

/// Keywords that say nothing about a value.
bool is_annotation(std::string_view keyword);

}  // namespace mobius
