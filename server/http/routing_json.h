#pragma once

#include <nlohmann/json.hpp>

#include "engine/routing.h"

namespace mobius {

/// `mobius.routing` of an answer; README.md has its members.
nlohmann::ordered_json routing_json(const Routing& routing);

}  // namespace mobius
