#include "kernels/cpu/host.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace mobius {
namespace {

namespace fs = std::filesystem;

/// The number after `key` in a file of lines "key value ...".
std::optional<std::uint64_t> read_entry(const fs::path& file, const std::string& key) {
  std::ifstream in(file);
  std::string line;
  while (std::getline(in, line)) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t value = 0;
    if (words >> name >> value && name == key) return value;
  }
  return std::nullopt;
}

/// The number that a file consists of; none where it says "max".
std::optional<std::uint64_t> read_number(const fs::path& file) {
  std::ifstream in(file);
  std::uint64_t value = 0;
  if (in >> value) return value;
  return std::nullopt;
}

/// The folders of this process's control group and all above it, for one controller. In a container
/// the group's own path is often not mounted; then the mount itself is the group.
std::vector<fs::path> group_folders(const fs::path& root, const std::string& controller) {
  std::vector<fs::path> folders;
  std::ifstream in(root / "proc/self/cgroup");
  std::string line;
  while (std::getline(in, line)) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    std::string controllers(1, ',');
    controllers += line.substr(first + 1, second - first - 1);
    controllers += ',';
    std::string wanted(1, ',');
    wanted += controller;
    wanted += ',';
    const bool unified = controllers == ",,";
    if (!unified && controllers.find(wanted) == std::string::npos) continue;
    const fs::path mount = root / "sys/fs/cgroup" / (unified ? "" : controller);
    fs::path group = fs::path(line.substr(second + 1)).relative_path();
    for (; !group.empty(); group = group.parent_path()) folders.push_back(mount / group);
    folders.push_back(mount);
  }
  return folders;
}

}  // namespace

std::size_t available_memory(const fs::path& root) {
  const auto kilobytes = read_entry(root / "proc/meminfo", "MemAvailable:");
  if (!kilobytes) {
    throw std::runtime_error("cannot read MemAvailable from " + (root / "proc/meminfo").string());
  }
  std::uint64_t available = *kilobytes * 1024;
  for (const fs::path& folder : group_folders(root, "memory")) {
    auto limit = read_number(folder / "memory.max");
    auto used = read_number(folder / "memory.current");
    std::string prefix;
    if (!used) {  // version 1
      limit = read_number(folder / "memory.limit_in_bytes");
      used = read_number(folder / "memory.usage_in_bytes");
      prefix = "total_";
    }
    if (!limit || !used) continue;
    const std::uint64_t files =
        read_entry(folder / "memory.stat", prefix + "inactive_file").value_or(0) +
        read_entry(folder / "memory.stat", prefix + "active_file").value_or(0);
    const std::uint64_t taken = *used - std::min(*used, files);
    available = std::min(available, *limit - std::min(*limit, taken));
  }
  return available;
}

int available_processors(const fs::path& root) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  int processors = sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : 1;
  for (const fs::path& folder : group_folders(root, "cpu")) {
    std::ifstream in(folder / "cpu.max");
    double quota = 0;
    double period = 0;
    if (!(in >> quota >> period)) {  // version 1, or "max"
      quota = static_cast<double>(read_number(folder / "cpu.cfs_quota_us").value_or(0));
      period = static_cast<double>(read_number(folder / "cpu.cfs_period_us").value_or(0));
    }
    // Version 1 says "no quota" as -1, which reads as a huge unsigned number.
    if (quota <= 0 || quota > 1e12 || period <= 0) continue;
    processors = std::min(processors, static_cast<int>(std::ceil(quota / period)));
  }
  return std::max(processors, 1);
}

}  // namespace mobius
