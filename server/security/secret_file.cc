#include "server/security/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace mobius {
namespace {

/// A file that is open, until the end of its scope.
class OpenFile {
 public:
  OpenFile(const std::string& file, int flags) : descriptor_(open(file.c_str(), flags)) {}
  ~OpenFile() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

}  // namespace

std::string read_secret_file(const std::string& key, const std::string& file, FileReading reading) {
  constexpr std::size_t kMaxBytes = std::size_t{4} << 20U;
  const auto failure = [&](const std::string& why) {
    return std::runtime_error(key + ": " + file + ": " + why);
  };
  const auto unreadable = [&] {
    return failure(std::string("cannot be read: ") + std::strerror(errno));
  };
  const bool again = reading == FileReading::again;
  const OpenFile opened(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | (again ? O_NONBLOCK : 0));
  if (opened.get() < 0) throw unreadable();
  struct stat info {};
  if (fstat(opened.get(), &info) != 0) throw unreadable();
  if (S_ISDIR(info.st_mode)) throw failure("cannot be read: is a directory");
  if (again && !S_ISREG(info.st_mode)) {
    throw failure("cannot be read again: is not a regular file");
  }
  std::string text(kMaxBytes + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = read(opened.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw unreadable();
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  if (text.size() > kMaxBytes) throw failure("is larger than 4 MiB");
  return text;
}

}  // namespace mobius
