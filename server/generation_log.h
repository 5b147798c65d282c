#pragma once

#include <string>
#include <string_view>

#include "engine/request.h"

namespace mobius {

/// Writes the line of a generation that has ended, whatever the reason. `protocol`: "http", "grpc".
void log_generation(std::string_view protocol, const std::string& id, const Finish& finish);

}  // namespace mobius
