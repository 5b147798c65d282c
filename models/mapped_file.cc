#include "models/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>

namespace mobius {
namespace {

/// What the signal handler looks at: it can take no lock.
struct Range {
  std::atomic<std::uintptr_t> begin = 0;  // 0: free
  std::atomic<std::uintptr_t> end = 0;
  std::atomic<bool> lost = false;
};

constexpr std::size_t kMaxMappings = 1024;  // shards of all checkpoints of a process
std::array<Range, kMaxMappings> ranges;
std::mutex ranges_mutex;  // of those who take one
struct sigaction previous_action = {};

Range* range_of(std::uintptr_t address) {
  for (Range& range : ranges) {
    const std::uintptr_t begin = range.begin.load();
    if (begin != 0 && address >= begin && address < range.end.load()) return &range;
  }
  return nullptr;
}

/// Puts zeros in the place of the page that is missing and of all behind it, so that whoever reads
/// goes on.
void on_bus_error(int /*signal*/, siginfo_t* info, void* /*context*/) {
  const int saved_errno = errno;
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  if (Range* const range = range_of(address); range != nullptr) {
    const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const std::uintptr_t first = address & ~(page - 1);
    void* const zeros = ::mmap(reinterpret_cast<void*>(first), range->end.load() - first, PROT_READ,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    range->lost.store(true);
    errno = saved_errno;
    if (zeros != MAP_FAILED) return;
  }
  // Not ours: the access is repeated, and goes to whoever was asked before.
  ::sigaction(SIGBUS, &previous_action, nullptr);
}

void handle_bus_errors() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    ::sigaction(SIGBUS, &action, &previous_action);
  });
}

Range& take_range(void* address, std::size_t bytes) {
  const std::scoped_lock lock(ranges_mutex);
  for (Range& range : ranges) {
    if (range.begin.load() != 0) continue;
    const auto begin = reinterpret_cast<std::uintptr_t>(address);
    range.lost.store(false);
    range.end.store(begin + bytes);
    range.begin.store(begin);
    return range;
  }
  throw std::runtime_error("more than " + std::to_string(kMaxMappings) + " files are mapped");
}

}  // namespace

struct MappedFile::Mapping {
  Mapping(void* start, std::size_t size)
      : address(start), bytes(size), range(take_range(start, size)) {}
  ~Mapping() {
    range.begin.store(0);
    ::munmap(address, bytes);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  void* address;
  std::size_t bytes;
  Range& range;
};

MappedFile::MappedFile(const std::filesystem::path& path) {
  const auto system_error = [&](const char* action) {
    return std::runtime_error(path.string() + ": cannot " + action + ": " +
                              std::generic_category().message(errno));
  };
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw system_error("open");
  struct stat status = {};
  if (::fstat(descriptor, &status) != 0) {
    const auto error = system_error("stat");
    ::close(descriptor);
    throw error;
  }
  if (!S_ISREG(status.st_mode) || status.st_size == 0) {
    ::close(descriptor);
    throw std::runtime_error(path.string() +
                             ": is empty or not a regular file, expected a safetensors file");
  }
  const auto bytes = static_cast<std::size_t>(status.st_size);
  void* const address = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, descriptor, 0);
  const auto error = system_error("map");
  ::close(descriptor);  // the mapping holds the file
  if (address == MAP_FAILED) throw error;
  handle_bus_errors();
  try {
    mapping_ = std::make_shared<const Mapping>(address, bytes);
  } catch (...) {
    ::munmap(address, bytes);
    throw;
  }
}

std::span<const std::byte> MappedFile::bytes() const {
  return {static_cast<const std::byte*>(mapping_->address), mapping_->bytes};
}

bool MappedFile::lost() const {
  return mapping_->range.lost.load();
}

void MappedFile::prefault() const {
#ifdef MADV_POPULATE_READ
  if (::madvise(mapping_->address, mapping_->bytes, MADV_POPULATE_READ) == 0) return;
#endif
  ::madvise(mapping_->address, mapping_->bytes, MADV_WILLNEED);
}

void MappedFile::release() const {
  ::madvise(mapping_->address, mapping_->bytes, MADV_DONTNEED);
}

}  // namespace mobius
