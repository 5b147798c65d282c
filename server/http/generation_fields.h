#pragma once

#include <span>
#include <string_view>

#include "server/generation_options.h"
#include "server/http/json_fields.h"

namespace mobius {

// Members that the bodies of several endpoints share.

/// A member that is taken only with the value that asks for nothing, or as null.
struct NeutralMember {
  std::string_view name;
  std::string_view neutral;  ///< JSON
};
void require_neutral(JsonFields& fields, std::span<const NeutralMember> members);

/// How tokens are drawn and what ends them, whose request it is, and the `mobius` object.
void read_sampling(JsonFields& fields, GenerationOptions& options, Status& status);

/// vLLM's `priority`, beside the `mobius` object, which has the last word. Whether it counts.
bool read_priority(JsonFields& fields, GenerationOptions& options);

/// The members of a json_schema format: name, schema, description and strict.
void read_format_schema(JsonFields& fields, ResponseFormat& format);

/// Sets `stream`. Returns `stream_options`, null where it is not there or, refused, not allowed.
const nlohmann::ordered_json* read_stream_options(JsonFields& fields, bool& stream);

}  // namespace mobius
