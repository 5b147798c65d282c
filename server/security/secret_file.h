#pragma once

#include <string>

namespace mobius {

/// The content of a file that the configuration's `key` names. Throws std::runtime_error with one
/// line, "KEY: FILE: why", where it cannot be read, is a directory or larger than 4 MiB.
std::string read_secret_file(const std::string& key, const std::string& file);

}  // namespace mobius
