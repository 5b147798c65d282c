#pragma once

#include <cstddef>
#include <filesystem>

namespace mobius {

/// Memory that this process could still take without swapping: what the kernel calls available,
/// and no more than the limits of its control groups (version 1 or 2) leave. Files that are mapped
/// but not used count as free. `root` is the file system's, for tests. Throws std::runtime_error
/// where /proc/meminfo cannot be read.
std::size_t available_memory(const std::filesystem::path& root = "/");

/// Processors that this process may run on, at least 1: its affinity mask, and no more than its
/// control groups' CPU quota pays for.
int available_processors(const std::filesystem::path& root = "/");

}  // namespace mobius
