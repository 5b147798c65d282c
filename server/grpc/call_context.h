#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "server/generation_service.h"
#include "server/security/key_store.h"
#include "server/worker_pool.h"

namespace mobius {

class GenerationReactor;

/// What all calls share: the service, the thread that turns events into messages, and a watch over
/// clients that do not take theirs.
class CallContext {
 public:
  CallContext(GenerationService& generation, const KeyStore& access,
              std::chrono::seconds write_timeout);
  ~CallContext();
  CallContext(const CallContext&) = delete;
  CallContext& operator=(const CallContext&) = delete;

  void add(const std::shared_ptr<GenerationReactor>& call);
  void remove(GenerationReactor* call);
  /// Calls between add and remove.
  int calls() const;

  GenerationService& service;
  const KeyStore& keys;
  const std::chrono::seconds write_timeout;
  WorkerPool pump;
  /// Tokenizes for those who want tokens and no answer: nobody's generation waits behind them.
  WorkerPool token_work{1, 64};

 private:
  void watch();

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::unordered_map<GenerationReactor*, std::weak_ptr<GenerationReactor>> calls_;
  bool stopping_ = false;
  std::thread watch_;
};

}  // namespace mobius
