#pragma once

#include "server/serve.h"

namespace mobius {

/// The command line, from the first word to the exit code: a client's command, a question that
/// needs no model, or the server. `wrap`: see serve.
int run_program(int argc, char** argv, const WrapRunner& wrap = {});

}  // namespace mobius
