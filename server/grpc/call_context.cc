#include "server/grpc/call_context.h"

#include <limits>
#include <vector>

namespace mobius {

CallContext::CallContext(GenerationService& generation, const KeyStore& access,
                         std::chrono::seconds timeout)
    : service(generation),
      keys(access),
      write_timeout(timeout),
      pump(1, std::numeric_limits<std::size_t>::max()),
      watch_([this] { watch(); }) {}

CallContext::~CallContext() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  watch_.join();
}

void CallContext::add(const std::shared_ptr<WatchedCall>& call) {
  const std::lock_guard lock(mutex_);
  calls_.emplace(call.get(), call);
}

void CallContext::remove(WatchedCall* call) {
  const std::lock_guard lock(mutex_);
  calls_.erase(call);
}

int CallContext::calls() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(calls_.size());
}

void CallContext::watch() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, std::chrono::seconds(1), [this] { return stopping_; })) {
    std::vector<std::shared_ptr<WatchedCall>> overdue;
    for (const auto& [address, weak] : calls_) {
      auto call = weak.lock();
      if (call != nullptr && call->write_is_overdue()) overdue.push_back(std::move(call));
    }
    lock.unlock();
    for (auto& call : overdue) {
      pump.post([call = std::move(call)] { call->cut_off(); });
    }
    overdue.clear();
    lock.lock();
  }
}

}  // namespace mobius
