#pragma once

#include <span>

namespace mobius {

// The commands that are clients of a server, or need none. `arguments` begin with the command's
// name. Each returns the process' exit code: 0, or 1 after a line on standard error; what they
// throw is such a line too.

/// `mobius chat`: a conversation in a terminal.
int chat_command(std::span<const char* const> arguments);

/// `mobius bench`: puts a load on a server and says how it fared.
int bench_command(std::span<const char* const> arguments);

/// `mobius tokenize`: tokens of a text, with the tokenizer of a model's folder.
int tokenize_command(std::span<const char* const> arguments);

}  // namespace mobius
