#pragma once

#include <cstddef>

#include "server/generation_service.h"

namespace mobius {

/// How one call's events become messages of its protocol. Used by one thread at a time.
template <typename Message>
class EventWriter {
 public:
  virtual ~EventWriter() = default;

  /// Once, before the first event.
  virtual void begin(const Generation& generation) = 0;

  /// Fills an empty message. False: the event needs none. A Finish is no error.
  virtual bool write(std::size_t choice, const Event& event, Message& message) = 0;

  /// A status of the generation service, its field named as the protocol's messages have it.
  virtual Status named(const Status& status) const = 0;
};

}  // namespace mobius
