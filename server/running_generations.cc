#include "server/running_generations.h"

#include <utility>

#include "server/json.h"

namespace mobius {

void RunningGenerations::add(const std::string& id, std::shared_ptr<KeyAccount> account,
                             std::vector<std::shared_ptr<Stream>> streams) {
  const std::size_t count = streams.size();
  const std::lock_guard lock(mutex_);
  entries_.emplace(id, Entry{std::move(account), std::move(streams), count});
}

void RunningGenerations::choice_ended(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(id);
  if (found != entries_.end() && --found->second.left == 0) entries_.erase(found);
}

Status RunningGenerations::abort(const std::string& id, const KeyAccount* account) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end() || found->second.account.get() != account) {
    return {StatusCode::not_found, "id: no generation \"" + brief_text(id) + "\" is under way",
            "id"};
  }
  for (const auto& stream : found->second.streams) stream->cancel();
  return {};
}

}  // namespace mobius
