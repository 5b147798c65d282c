#include "engine/client_shares.h"

#include <algorithm>
#include <limits>

namespace mobius {

ClientShares::Handle ClientShares::enter(const std::string& name) {
  const auto [client, added] = clients_.try_emplace(name);
  if (added && clients_.size() > 1) {
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    for (auto other = clients_.begin(); other != clients_.end(); ++other) {
      if (other != client) least = std::min(least, other->second.served);
    }
    client->second.served = least;
  }
  ++client->second.requests;
  return client;
}

void ClientShares::leave(Handle client) {
  if (--client->second.requests == 0) clients_.erase(client);
}

}  // namespace mobius
