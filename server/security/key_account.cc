#include "server/security/key_account.h"

#include <algorithm>
#include <cmath>

namespace mobius {
namespace {

Status over(const std::string& what, std::int64_t limit, std::chrono::seconds wait) {
  return Status::exhausted("this key's limit of " + std::to_string(limit) + ' ' + what +
                               " is reached; try again in " + std::to_string(wait.count()) + " s",
                           wait);
}

}  // namespace

void Allowance::fill(TimePoint now) {
  if (now <= at_) return;
  const double minutes = std::chrono::duration<double, std::ratio<60>>(now - at_).count();
  const auto most = static_cast<double>(per_minute_);
  level_ = std::min(level_ + most * minutes, most);
  at_ = now;
}

void Allowance::set_limit(std::int64_t per_minute, TimePoint now) {
  fill(now);
  const auto most = static_cast<double>(per_minute);
  level_ = per_minute_ == 0 ? most : std::min(level_, most);
  per_minute_ = per_minute;
}

void Allowance::take(std::int64_t amount, TimePoint now) {
  if (per_minute_ == 0) return;
  fill(now);
  level_ -= static_cast<double>(amount);
}

std::chrono::seconds Allowance::wait_for(double amount, TimePoint now) {
  if (per_minute_ == 0) return {};
  fill(now);
  if (level_ >= amount) return {};
  const double seconds = (amount - level_) * 60 / static_cast<double>(per_minute_);
  return std::chrono::seconds(static_cast<std::int64_t>(std::ceil(seconds)));
}

KeyAccount::KeyAccount(std::string name, const KeyLimits& limits, Clock::time_point now)
    : name_(std::move(name)),
      limits_(limits),
      requests_(limits.requests_per_minute, now),
      tokens_(limits.tokens_per_minute, now) {}

void KeyAccount::set_limits(const KeyLimits& limits, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  limits_ = limits;
  requests_.set_limit(limits.requests_per_minute, now);
  tokens_.set_limit(limits.tokens_per_minute, now);
}

Status KeyAccount::begin(Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  if (limits_.concurrent_requests > 0 && running_ >= limits_.concurrent_requests) {
    // When one of them ends is not known here.
    return over("requests at a time", limits_.concurrent_requests, std::chrono::seconds(1));
  }
  const std::chrono::seconds request = requests_.wait_for(1, now);
  if (request.count() > 0) return over("requests per minute", limits_.requests_per_minute, request);
  const std::chrono::seconds tokens = tokens_.wait_for(1, now);
  if (tokens.count() > 0) return over("tokens per minute", limits_.tokens_per_minute, tokens);
  requests_.take(1, now);
  ++running_;
  return {};
}

void KeyAccount::end() {
  const std::lock_guard lock(mutex_);
  --running_;
}

void KeyAccount::spend(std::int64_t tokens, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  tokens_.take(tokens, now);
}

}  // namespace mobius
