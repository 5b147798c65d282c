#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/status.h"
#include "engine/stream.h"
#include "server/security/key_account.h"

namespace mobius {

/// Generations under way, so that they can be ended by their id. Thread-safe.
class RunningGenerations {
 public:
  /// `account`: whose it is; may be null. `streams`: of its choices.
  void add(const std::string& id, std::shared_ptr<KeyAccount> account,
           std::vector<std::shared_ptr<Stream>> streams);
  /// One of its choices is over; the last takes the generation away.
  void choice_ended(const std::string& id);
  /// Cancels all its choices. Not found where there is none of that id, or it is another's: ids of
  /// others are nobody's business.
  Status abort(const std::string& id, const KeyAccount* account);

 private:
  struct Entry {
    std::shared_ptr<KeyAccount> account;
    std::vector<std::shared_ptr<Stream>> streams;
    std::size_t left;  // choices that are not over
  };

  std::mutex mutex_;
  std::unordered_map<std::string, Entry> entries_;
};

}  // namespace mobius
