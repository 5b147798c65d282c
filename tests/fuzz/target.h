#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <span>
#include <string_view>

/// One input, as libFuzzer hands it over. Each file named *_fuzz.cc defines it once: it must take
/// any bytes, and calls `require` for what must hold whatever they are.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace mobius {

inline std::string_view as_text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Ends the process, in any build: a fuzzer keeps the input, a replay names the file.
inline void require(bool condition, const char* what) {
  if (condition) return;
  std::cerr << "violated: " << what << std::endl;
  std::abort();
}

/// Messages for people are one line of text, whatever was in the input.
inline void require_one_line(std::string_view message) {
  require(!message.empty(), "an error has a message");
  require(message.find('\n') == std::string_view::npos, "a message is one line");
}

}  // namespace mobius
