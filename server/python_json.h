#pragma once

#include <string>
#include <string_view>

#include "engine/status.h"

namespace mobius {

/// Writes a JSON object anew as Python's json.dumps(json.loads(json), ensure_ascii=False) would,
/// which is how chat templates show JSON to a model. Keys keep their order; a repeated key keeps
/// its first place and its last value; integers keep their digits, other numbers become
/// repr(float). `indent` 0 writes one line. Errors are invalid_argument without a field: not JSON,
/// not an object, nested deeper than 200 levels, a number beyond a double.
StatusOr<std::string> python_json_object(std::string_view json, int indent);

/// A string in JSON, quoted, characters beyond ASCII as they are.
std::string python_json_string(std::string_view text);

}  // namespace mobius
