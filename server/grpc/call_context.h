#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "server/generation_service.h"
#include "server/grpc/tokenizer_archive.h"
#include "server/security/key_store.h"
#include "server/worker_pool.h"

namespace mobius {

/// A call that sends messages, as the watch over clients that do not read sees it.
class WatchedCall {
 public:
  virtual ~WatchedCall() = default;
  /// Thread-safe. Has the message that is being sent been so for longer than the write timeout?
  virtual bool write_is_overdue() const = 0;
  /// On the pump's thread: cancels the call if that is still so.
  virtual void cut_off() = 0;
};

/// What all calls share: the service, the thread that turns events into messages, and a watch over
/// clients that do not take theirs.
class CallContext {
 public:
  CallContext(GenerationService& generation, const KeyStore& access,
              std::chrono::seconds write_timeout);
  ~CallContext();
  CallContext(const CallContext&) = delete;
  CallContext& operator=(const CallContext&) = delete;

  void add(const std::shared_ptr<WatchedCall>& call);
  void remove(WatchedCall* call);
  /// Calls between add and remove.
  int calls() const;

  GenerationService& service;
  const KeyStore& keys;
  const std::chrono::seconds write_timeout;
  const std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();
  WorkerPool pump;
  /// Tokenizes for those who want tokens and no answer: nobody's generation waits behind them.
  WorkerPool token_work{1, 64};
  TokenizerArchives tokenizers;

 private:
  void watch();

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::unordered_map<WatchedCall*, std::weak_ptr<WatchedCall>> calls_;
  bool stopping_ = false;
  std::thread watch_;
};

}  // namespace mobius
