#pragma once

#include <cstddef>
#include <exception>
#include <string>
#include <string_view>

#include "tests/scratch_folder.h"

namespace mobius {

/// The message of the exception that `action` throws, or "(nothing thrown)".
template <typename Action>
std::string message_of(const Action& action) {
  try {
    action();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "(nothing thrown)";
}

/// A safetensors file of this header and data, with the right length prefix.
inline std::string safetensors_bytes(std::string_view header, std::string_view data) {
  std::string bytes;
  for (std::size_t i = 0; i < 8; ++i) bytes += static_cast<char>(header.size() >> (8 * i) & 0xFF);
  return bytes + std::string(header) + std::string(data);
}

}  // namespace mobius
