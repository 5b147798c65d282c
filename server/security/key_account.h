#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "engine/status.h"

namespace mobius {

/// What the requests of one key may use. 0: no limit.
struct KeyLimits {
  std::int64_t requests_per_minute = 0;
  std::int64_t tokens_per_minute = 0;  ///< of prompts and answers together
  std::int64_t concurrent_requests = 0;
};

/// An allowance that fills up evenly, to at most a minute's worth (a token bucket). What is taken
/// may exceed what is there: the rest is a debt, which fills up first. Not thread-safe.
class Allowance {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  /// Full. 0: no limit.
  Allowance(std::int64_t per_minute, TimePoint now)
      : per_minute_(per_minute), level_(static_cast<double>(per_minute)), at_(now) {}

  /// Keeps what is there, as far as the new limit allows. Full where there was no limit before.
  void set_limit(std::int64_t per_minute, TimePoint now);
  void take(std::int64_t amount, TimePoint now);
  /// Until at least `amount` is there, rounded up; 0 if it is already, or nothing is limited.
  std::chrono::seconds wait_for(double amount, TimePoint now);

 private:
  void fill(TimePoint now);

  std::int64_t per_minute_;
  double level_;
  TimePoint at_;
};

/// What the holder of one key is using. Thread-safe. Times are parameters so that tests need not
/// wait; they must not run backwards by more than a thread's delay.
class KeyAccount {
 public:
  using Clock = std::chrono::steady_clock;

  /// `name` is for logs; empty: requests without a key.
  KeyAccount(std::string name, const KeyLimits& limits, Clock::time_point now = Clock::now());

  const std::string& name() const { return name_; }
  void set_limits(const KeyLimits& limits, Clock::time_point now = Clock::now());

  /// Counts a request that begins, or refuses it (resource_exhausted, with the time after which it
  /// is worth trying again).
  Status begin(Clock::time_point now = Clock::now());
  /// The end of a request that `begin` has counted.
  void end();
  /// Counts tokens of a request. Never refuses: their number is known only when they are computed
  /// or about to be. Later requests wait until the debt is paid.
  void spend(std::int64_t tokens, Clock::time_point now = Clock::now());

 private:
  const std::string name_;
  std::mutex mutex_;
  KeyLimits limits_;
  Allowance requests_;
  Allowance tokens_;
  std::int64_t running_ = 0;
};

/// A request that an account has counted, until the end of its life.
class Admission {
 public:
  /// `account`'s `begin` must have returned OK.
  explicit Admission(std::shared_ptr<KeyAccount> account) : account_(std::move(account)) {}
  ~Admission() { account_->end(); }
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  const std::shared_ptr<KeyAccount>& account() const { return account_; }

 private:
  std::shared_ptr<KeyAccount> account_;
};

}  // namespace mobius
