#include "engine/stream.h"

#include <utility>

namespace mobius {

void Stream::on_events(std::function<void()> notify) {
  // Two locks: `notify_mutex_` is held while a notify runs, so that a replaced one is not running
  // any more when this returns; `mutex_` is not, so that a consumer may take() inside it.
  const std::scoped_lock notify_lock(notify_mutex_);
  notify_ = std::move(notify);
  bool waiting = false;
  {
    const std::scoped_lock lock(mutex_);
    waiting = !events_.empty();
  }
  if (waiting && notify_) notify_();
}

std::vector<Event> Stream::take() {
  std::vector<Event> events;
  const std::scoped_lock lock(mutex_);
  events.swap(events_);
  return events;
}

void Stream::push(Event event) {
  {
    const std::scoped_lock lock(mutex_);
    if (!events_.empty()) {
      if (std::holds_alternative<PrefillProgress>(event) &&
          std::holds_alternative<PrefillProgress>(events_.back())) {
        events_.back() = std::move(event);
      } else {
        events_.push_back(std::move(event));
      }
      return;
    }
    events_.push_back(std::move(event));
  }
  const std::scoped_lock notify_lock(notify_mutex_);
  if (notify_) notify_();
}

}  // namespace mobius
