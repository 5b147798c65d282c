#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/cache_events.h"

namespace mobius {

struct KvEventOptions {
  std::string endpoint;         ///< a ZeroMQ address to bind, "tcp://127.0.0.1:5557"
  std::string replay_endpoint;  ///< likewise; empty: no replay
  std::string topic;
  std::size_t buffer_batches = 10000;  ///< kept for replay
  std::int32_t page_tokens = 0;
};

/// Publishes the prefix cache's changes as vLLM does, so that routers made for it (llm-d, Dynamo)
/// know what this server has cached:
///
/// - a PUB socket: [topic, number, batch (kv_event_message.h)] for each batch; numbers count up
///   from 0. Batch 0 says that nothing is cached. A gap means that a subscriber missed some, or
///   that more were waiting to be sent than may wait.
/// - a ROUTER socket: who sends [empty, number] gets [empty, number, batch] for each batch from
///   that one on that is still kept, then [empty, -1, empty].
///
/// Owns a thread. `publish` may be called from any thread.
class KvEventPublisher {
 public:
  /// Throws std::runtime_error, one line with the address, where one cannot be bound.
  explicit KvEventPublisher(const KvEventOptions& options);
  /// Sends what waits, for half a second at most.
  ~KvEventPublisher();
  KvEventPublisher(const KvEventPublisher&) = delete;
  KvEventPublisher& operator=(const KvEventPublisher&) = delete;

  /// Takes a batch to be sent; never waits for the network. Subscribers that do not keep up lose
  /// batches, not this server its time or memory.
  void publish(std::vector<CacheEvent> events);

  /// Where the sockets really listen: endpoints may leave the port open ("tcp://127.0.0.1:*").
  std::string endpoint() const;
  std::string replay_endpoint() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mobius
