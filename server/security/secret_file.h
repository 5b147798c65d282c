#pragma once

#include <cstdint>
#include <string>

namespace mobius {

/// At the start a pipe is as good as a file (--security.key_file <(...)). Read again it would be
/// waited for, for ever if nobody writes, by the thread that reloads: it is refused then.
enum class FileReading : std::uint8_t { at_start, again };

/// The content of a file that the configuration's `key` names. Throws std::runtime_error with one
/// line, "KEY: FILE: why", where it cannot be read, is a directory or larger than 4 MiB.
std::string read_secret_file(const std::string& key, const std::string& file, FileReading reading);

}  // namespace mobius
