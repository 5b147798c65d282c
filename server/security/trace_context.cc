#include "server/security/trace_context.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <random>

#include "engine/mix.h"

namespace mobius {
namespace {

// "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
constexpr std::size_t kVersion = 2;
constexpr std::size_t kTraceId = 32;
constexpr std::size_t kParentId = 16;
constexpr std::size_t kFlags = 2;
constexpr std::size_t kLength = kVersion + 1 + kTraceId + 1 + kParentId + 1 + kFlags;

bool is_hex(std::string_view text) {
  return std::ranges::all_of(
      text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_zero(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c == '0'; });
}

std::string new_span_id() {
  static std::atomic<std::uint64_t> counter = [] {
    std::random_device device;
    return (std::uint64_t{device()} << 32U) | device();
  }();
  std::uint64_t number = 0;
  while (number == 0) number = mix(counter.fetch_add(1));
  std::array<char, kParentId + 1> text{};
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(number));
  return text.data();
}

}  // namespace

std::string TraceContext::response() const {
  if (empty()) return {};
  std::string text = "00-";
  return text.append(trace_id).append("-").append(span_id).append("-").append(flags);
}

TraceContext trace_context(std::string_view traceparent) {
  if (traceparent.size() < kLength) return {};
  std::size_t at = 0;
  const auto part = [&](std::size_t length) {
    const std::string_view text = traceparent.substr(at, length);
    at += length + 1;
    return text;
  };
  const std::string_view version = part(kVersion);
  const std::string_view trace_id = part(kTraceId);
  const std::string_view parent_id = part(kParentId);
  const std::string_view flags = part(kFlags);
  for (const std::size_t dash : {kVersion, kVersion + 1 + kTraceId, kLength - kFlags - 1}) {
    if (traceparent[dash] != '-') return {};
  }
  if (!is_hex(version) || !is_hex(trace_id) || !is_hex(parent_id) || !is_hex(flags)) return {};
  if (version == "ff" || is_zero(trace_id) || is_zero(parent_id)) return {};
  // Later versions may append fields.
  const bool longer = traceparent.size() > kLength;
  if (longer && (version == "00" || traceparent[kLength] != '-')) return {};
  TraceContext trace;
  trace.trace_id = trace_id;
  trace.parent_id = parent_id;
  trace.span_id = new_span_id();
  // Of the flags, version 00 knows "sampled" alone; the others are not to be passed on.
  trace.flags = (flags[1] - (flags[1] <= '9' ? '0' : 'a' - 10)) % 2 == 1 ? "01" : "00";
  return trace;
}

}  // namespace mobius
