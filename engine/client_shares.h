#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace mobius {

/// Who has had how much, so that places go to the client that has had the least: each client with
/// unfinished requests counts the tokens that were computed for it (a virtual token counter). A
/// client that comes, or comes back, starts at the least of those present: being away saves up
/// nothing, and whoever sends a thousand requests waits behind himself alone. Not thread-safe.
class ClientShares {
 public:
  struct Client {
    std::int64_t served = 0;
    std::int32_t requests = 0;  // unfinished ones
  };
  using Handle = std::map<std::string, Client>::iterator;

  /// A request of this client begins to wait. The handle is good until its `leave`.
  Handle enter(const std::string& name);
  /// The request is over.
  void leave(Handle client);

  std::size_t size() const { return clients_.size(); }

 private:
  std::map<std::string, Client> clients_;
};

}  // namespace mobius
