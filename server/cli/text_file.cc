#include "server/cli/text_file.h"

#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>

namespace mobius {

std::string read_text(const std::string& path) {
  const auto all = [](std::istream& stream) {
    return std::string(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
  };
  if (path.empty() || path == "-") return all(std::cin);
  std::ifstream stream(path, std::ios::binary);
  std::error_code ignored;
  if (!stream || std::filesystem::is_directory(path, ignored)) {
    throw std::runtime_error(path + ": cannot be read");
  }
  return all(stream);
}

}  // namespace mobius
