#include "server/security/request_id.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <random>

#include "engine/mix.h"

namespace mobius {
namespace {

constexpr std::size_t kMaxLength = 128;

bool is_usable(std::string_view id) {
  return !id.empty() && id.size() <= kMaxLength && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("-_.:/+=").find(c) != std::string_view::npos;
  });
}

std::uint64_t random_word() {
  std::random_device device;
  return (std::uint64_t{device()} << 32U) | device();
}

}  // namespace

std::string request_id(std::string_view offered) {
  if (is_usable(offered)) return std::string(offered);
  // The first half tells processes apart, the second the requests of one.
  static const std::uint64_t process = random_word();
  static std::atomic<std::uint64_t> counter = random_word();
  const std::uint64_t number = mix(counter.fetch_add(1));
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "req-%016llx%016llx",
                static_cast<unsigned long long>(process), static_cast<unsigned long long>(number));
  return text.data();
}

}  // namespace mobius
