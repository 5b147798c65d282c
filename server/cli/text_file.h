#pragma once

#include <string>

namespace mobius {

/// All of a file; of standard input where `path` is empty or "-". Throws std::runtime_error with
/// the path when it cannot be read.
std::string read_text(const std::string& path);

}  // namespace mobius
