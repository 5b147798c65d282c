#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <variant>
#include <vector>

#include "engine/request.h"

namespace mobius {

using Event = std::variant<PrefillProgress, PromptTokens, TokenDelta, Finish>;

/// The way of a request's events from the engine thread to one consumer. Thread-safe. Both sides
/// hold it by shared_ptr; dropping the consumer's does not cancel the request, `cancel` does.
class Stream {
 public:
  /// Consumer: `notify` runs on the engine's thread (or inside this call, when events wait already)
  /// whenever the stream goes from empty to not empty. It must only wake somebody up, and must not
  /// call on_events. It may come once too often: then take() is empty. When this returns, an
  /// earlier notify is not running and never will; an empty function sets none.
  void on_events(std::function<void()> notify);

  /// Consumer: all events since the last take, in order; empty if none.
  std::vector<Event> take();

  /// Consumer: asks the engine to stop; it answers with Finish{error, cancelled} at its next step.
  /// Harmless after the end.
  void cancel() { cancelled_.store(true, std::memory_order_release); }
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

  /// Engine: appends an event. A newer PrefillProgress replaces one that nobody took yet.
  void push(Event event);

 private:
  std::mutex mutex_;
  std::vector<Event> events_;
  std::mutex notify_mutex_;  // held while notify_ runs; never taken while mutex_ is held
  std::function<void()> notify_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace mobius
