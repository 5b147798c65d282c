#pragma once

#include <string>
#include <vector>

#include "server/config/config.h"

namespace mobius {

/// Tries what starting a server would, up to reading weights: keys, certificates, the model's
/// folder (configuration, shapes, tokenizer, chat template), memory, default attention. Prints the
/// memory plan on standard output. Returns everything that is wrong, one line each.
std::vector<std::string> check_setup(const ServerConfig& config);

}  // namespace mobius
