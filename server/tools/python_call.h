#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mobius {

struct PythonCall {
  std::string name;
  std::string arguments;  ///< a JSON object
};

/// Reads Llama 3.1's form of calling its own tools: NAME.call(KEY=VALUE, ...). Values are Python's
/// strings, numbers, True, False and None, and what is JSON; nothing is evaluated. nullopt where
/// the text is no such call.
std::optional<PythonCall> parse_python_call(std::string_view text);

}  // namespace mobius
