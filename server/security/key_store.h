#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "server/config/config.h"
#include "server/security/key_account.h"
#include "server/security/secret_file.h"

namespace mobius {

/// A key as it is kept: its SHA-256, never itself.
struct ApiKey {
  std::string name;
  std::array<std::uint8_t, 32> digest{};
  KeyLimits limits;
};

/// Reads keys, one on each line: a name, the key, and limits of its own where it has some,
///
///     # comment
///     alice  mk-3f9c...  requests_per_minute=600 tokens_per_minute=200000 concurrent_requests=8
///
/// Names are unique, of letters, digits, '.', '_' and '-'. Keys are unique, have 16 to 256
/// characters, and no spaces. `defaults` are the limits where a line has none. Fails with one line
/// that names line and name, never a key.
StatusOr<std::vector<ApiKey>> parse_key_file(std::string_view text, const KeyLimits& defaults);

/// The same for keys separated by commas; they are named environment-1, environment-2, ...
StatusOr<std::vector<ApiKey>> parse_key_list(std::string_view text, const KeyLimits& defaults);

/// Who may use the server: keys of a file and of the configuration, and what their holders are
/// using. Thread-safe.
class KeyStore {
 public:
  /// Throws std::runtime_error with one line where the keys cannot be used.
  explicit KeyStore(const ServerConfig::Security& options);

  /// False where there are no keys: everybody shares one account then.
  bool needs_key() const { return needs_key_; }

  /// The account that a request's Authorization field ("Bearer KEY") gives it. Takes as long for
  /// any key, right or wrong.
  StatusOr<std::shared_ptr<KeyAccount>> account_of(std::string_view authorization) const;

  /// Limits of keys that have none of their own, and of requests without a key, from the next
  /// `reload` on. To be called by the thread that reloads.
  void set_default_limits(const KeyLimits& limits);

  /// Reads the file again. Names that stay keep their account, and with it what they have used. On
  /// failure everything stays as it is. One thread at a time.
  Status reload();
  std::size_t size() const;

 private:
  struct Entry {
    std::array<std::uint8_t, 32> digest;
    std::shared_ptr<KeyAccount> account;
  };
  using Entries = std::vector<Entry>;

  Status load(FileReading reading);
  std::shared_ptr<const Entries> entries() const;

  const ServerConfig::Security options_;
  KeyLimits default_limits_;  // of the thread that reloads
  const bool needs_key_;
  const std::shared_ptr<KeyAccount> anonymous_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Entries> entries_;
};

}  // namespace mobius
