#include "server/security/secret_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace mobius {

std::string read_secret_file(const std::string& key, const std::string& file) {
  constexpr std::size_t kMaxBytes = std::size_t{4} << 20U;
  const auto failure = [&](const std::string& why) {
    return std::runtime_error(key + ": " + file + ": " + why);
  };
  std::error_code ignored;
  if (std::filesystem::is_directory(file, ignored)) {
    throw failure("cannot be read: is a directory");
  }
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw failure(std::string("cannot be read: ") + std::strerror(errno));
  std::string text(kMaxBytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (stream.bad()) throw failure("cannot be read");
  text.resize(static_cast<std::size_t>(stream.gcount()));
  if (text.size() > kMaxBytes) throw failure("is larger than 4 MiB");
  return text;
}

}  // namespace mobius
