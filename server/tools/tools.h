#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/grammar/grammar.h"
#include "engine/status.h"
#include "server/generation_options.h"

namespace mobius {

/// May, or must, an answer call tools?
struct ToolChoice {
  enum class Kind : std::uint8_t { automatic, none, required, named };
  Kind kind = Kind::automatic;
  std::string name = {};  ///< named: the only tool that may be called
};

/// A function that a client offers to the model.
struct Tool {
  std::string name;
  std::string parameters;  ///< JSON Schema of its arguments, an object
  bool strict = false;     ///< arguments always follow the schema
};

/// Reads definitions, a JSON object each: OpenAI's {"type": "function", "function": {"name": ...,
/// "parameters": ..., "strict": ...}} or what is in its "function" alone. Refuses with
/// invalid_argument, field "tools[1].function.name" and the like.
StatusOr<std::vector<Tool>> read_tools(std::span<const std::string> tools_json);

/// The form of an answer that calls must have, as GrammarCache compiles it.
struct CallGrammar {
  std::string schema;  ///< JSON; `forms` says where in it what is
  GrammarForms forms;
};

/// What keeps an answer to the choice, to the schemas of strict tools and to the format that was
/// asked for beside them; none where nothing must. Llama 3.1's form of a call is {"name": ...,
/// "parameters": {...}}; several come one after the other, ";" between. A call that is forced
/// follows its tool's schema, strict or not. Refuses a choice that the tools cannot meet, field
/// "tool_choice". `tools` come from read_tools; `choice` is not none.
StatusOr<std::optional<CallGrammar>> call_grammar(std::span<const Tool> tools,
                                                  const ToolChoice& choice, bool parallel,
                                                  const ResponseFormat& format);

/// The schema of any arguments.
inline constexpr const char* kAnyArguments = R"({"type":"object"})";

}  // namespace mobius
