#include "server/kv_events/kv_event_message.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace mobius {
namespace {

using Json = nlohmann::json;

constexpr const char* kMedium = "GPU";

Json event_of(const PageStored& stored, std::int32_t page_tokens) {
  Json parent;
  if (stored.parent) parent = *stored.parent;
  return Json::array({"BlockStored", Json::array({stored.hash}), std::move(parent), stored.tokens,
                      page_tokens, nullptr, kMedium});
}

Json event_of(const PageRemoved& removed, std::int32_t) {
  return Json::array({"BlockRemoved", Json::array({removed.hash}), kMedium});
}

std::string batch(Json events, double seconds) {
  std::string bytes;
  Json::to_msgpack(Json::array({seconds, std::move(events), 0}), bytes);
  return bytes;
}

}  // namespace

std::string kv_event_message(std::span<const CacheEvent> events, std::int32_t page_tokens,
                             double seconds) {
  Json list = Json::array();
  for (const CacheEvent& event : events) {
    list.push_back(std::visit([&](const auto& e) { return event_of(e, page_tokens); }, event));
  }
  return batch(std::move(list), seconds);
}

std::string kv_cleared_message(double seconds) {
  return batch(Json::array({Json::array({"AllBlocksCleared"})}), seconds);
}

std::string kv_event_number(std::int64_t number) {
  std::string bytes(8, '\0');
  auto rest = static_cast<std::uint64_t>(number);
  for (auto byte = bytes.rbegin(); byte != bytes.rend(); ++byte, rest >>= 8U) {
    *byte = static_cast<char>(rest & 0xFFU);
  }
  return bytes;
}

std::int64_t parse_kv_event_number(std::string_view bytes) {
  if (bytes.size() != 8) return -1;
  std::uint64_t number = 0;
  for (const char byte : bytes) number = number << 8U | static_cast<unsigned char>(byte);
  const auto result = static_cast<std::int64_t>(number);
  return result < 0 ? -1 : result;
}

}  // namespace mobius
