#include "server/http/routing_json.h"

#include <cstddef>
#include <span>
#include <utility>

namespace mobius {

using Json = nlohmann::ordered_json;

Json routing_json(const Routing& routing) {
  Json layers = Json::array();
  std::span<const std::uint32_t> rest = routing.counts;
  const auto columns = static_cast<std::size_t>(routing.columns);
  for (std::int32_t layer = 0; layer < routing.layers; ++layer) {
    if (layer >= routing.layers - routing.full_layers) {
      layers.push_back(nullptr);
      continue;
    }
    Json heads = Json::array();
    for (std::int32_t head = 0; head < routing.heads; ++head) {
      heads.push_back(rest.first(columns));
      rest = rest.subspan(columns);
    }
    layers.push_back(std::move(heads));
  }
  Json top = Json::array();
  for (const RoutedBlock& block : routing.top) {
    top.push_back({{"block", block.block},
                   {"first_token", block.first_token},
                   {"tokens", block.tokens},
                   {"count", block.attended},
                   {"own", block.own},
                   {"text", block.text}});
  }
  return {{"tokens", routing.tokens},
          {"block", routing.block > 0 ? Json(routing.block) : Json(nullptr)},
          {"blocks", routing.blocks},
          {"column_blocks", routing.column_blocks},
          {"first_own_block", routing.first_own_block},
          {"counts", std::move(layers)},
          {"top", std::move(top)}};
}

}  // namespace mobius
