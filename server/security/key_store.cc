#include "server/security/key_store.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "server/json.h"
#include "server/security/secret_file.h"

namespace mobius {
namespace {

using Digest = std::array<std::uint8_t, 32>;

constexpr std::size_t kMinKey = 16;
constexpr std::size_t kMaxKey = 256;
constexpr std::size_t kMaxName = 64;
constexpr std::int64_t kMaxLimit = std::int64_t{1} << 50U;

Digest digest_of(std::string_view key) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

KeyLimits limits_of(const ServerConfig::Security& options) {
  return {options.requests_per_minute, options.tokens_per_minute, options.concurrent_requests};
}

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxName &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
         });
}

/// Empty if it can be one.
std::string problem_of_key(std::string_view key) {
  if (key.size() < kMinKey || key.size() > kMaxKey) {
    return "the key has " + std::to_string(key.size()) + " characters; must have " +
           std::to_string(kMinKey) + " to " + std::to_string(kMaxKey);
  }
  const bool printable =
      std::all_of(key.begin(), key.end(), [](char c) { return c > 0x20 && c < 0x7F; });
  return printable ? std::string() : "the key has characters other than printable ASCII";
}

/// Sets the limit that "name=number" says; else what is wrong with it.
std::string set_limit(std::string_view text, KeyLimits& limits) {
  const std::size_t equals = text.find('=');
  const std::string_view name = text.substr(0, equals);
  std::int64_t* limit = nullptr;
  if (name == "requests_per_minute") limit = &limits.requests_per_minute;
  if (name == "tokens_per_minute") limit = &limits.tokens_per_minute;
  if (name == "concurrent_requests") limit = &limits.concurrent_requests;
  if (limit == nullptr || equals == std::string_view::npos) {
    // Not shown: a key with a space in it may have been meant.
    return "what follows the key must be requests_per_minute=N, tokens_per_minute=N or "
           "concurrent_requests=N";
  }
  const std::string_view value = text.substr(equals + 1);
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || number < 0 ||
      number > kMaxLimit) {
    return std::string(name) + " is \"" + brief_text(value) + "\"; must be an integer, 0 to " +
           std::to_string(kMaxLimit);
  }
  *limit = number;
  return {};
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  while (true) {
    const std::size_t begin = line.find_first_not_of(" \t\r");
    if (begin == std::string_view::npos) return words;
    line.remove_prefix(begin);
    const std::size_t length = std::min(line.find_first_of(" \t\r"), line.size());
    words.push_back(line.substr(0, length));
    line.remove_prefix(length);
  }
}

/// Calls `visit(number, piece)` for each piece between separators, from 1 on, until it returns a
/// problem.
template <typename Visit>
std::string for_each_piece(std::string_view text, char separator, const Visit& visit) {
  for (std::size_t number = 1;; ++number) {
    const std::size_t end = text.find(separator);
    std::string problem = visit(number, text.substr(0, end));
    if (!problem.empty() || end == std::string_view::npos) return problem;
    text.remove_prefix(end + 1);
  }
}

Status failed(std::string message) {
  return {StatusCode::failed_precondition, std::move(message)};
}

/// Names and keys must be unique.
std::string problem_of(const std::vector<ApiKey>& keys) {
  std::set<std::string_view> names;
  std::set<Digest> digests;
  for (const ApiKey& key : keys) {
    if (!names.insert(key.name).second) return "the name " + key.name + " appears twice";
    if (!digests.insert(key.digest).second) return "the key of " + key.name + " appears twice";
  }
  return {};
}

std::string read_line(std::string_view line, const KeyLimits& defaults, std::vector<ApiKey>& keys) {
  const std::vector<std::string_view> words = words_of(line);
  if (words.empty() || words[0].starts_with('#')) return {};
  // A single word may be a key: not shown.
  if (words.size() < 2) return "must be a name and a key";
  if (!is_name(words[0])) {
    return "the name must have 1 to " + std::to_string(kMaxName) +
           " letters, digits, '.', '_' or '-'";
  }
  std::string problem = problem_of_key(words[1]);
  ApiKey key{std::string(words[0]), digest_of(words[1]), defaults};
  for (std::size_t i = 2; i < words.size() && problem.empty(); ++i) {
    problem = set_limit(words[i], key.limits);
  }
  if (!problem.empty()) return key.name + ": " + problem;
  keys.push_back(std::move(key));
  return {};
}

}  // namespace

StatusOr<std::vector<ApiKey>> parse_key_file(std::string_view text, const KeyLimits& defaults) {
  std::vector<ApiKey> keys;
  std::string problem = for_each_piece(text, '\n', [&](std::size_t line, std::string_view piece) {
    const std::string wrong = read_line(piece, defaults, keys);
    return wrong.empty() ? wrong : "line " + std::to_string(line) + ": " + wrong;
  });
  if (problem.empty()) problem = problem_of(keys);
  if (problem.empty() && keys.empty()) problem = "has no keys";
  if (!problem.empty()) return failed(std::move(problem));
  return keys;
}

StatusOr<std::vector<ApiKey>> parse_key_list(std::string_view text, const KeyLimits& defaults) {
  std::vector<ApiKey> keys;
  std::string problem = for_each_piece(text, ',', [&](std::size_t number, std::string_view piece) {
    const std::vector<std::string_view> words = words_of(piece);
    if (words.size() != 1) return "key " + std::to_string(number) + ": must be one word";
    std::string wrong = problem_of_key(words[0]);
    if (!wrong.empty()) return "key " + std::to_string(number) + ": " + wrong;
    keys.push_back({"environment-" + std::to_string(number), digest_of(words[0]), defaults});
    return std::string();
  });
  if (problem.empty()) problem = problem_of(keys);
  if (!problem.empty()) return failed(std::move(problem));
  return keys;
}

KeyStore::KeyStore(const ServerConfig::Security& options)
    : options_(options),
      default_limits_(limits_of(options)),
      needs_key_(!options.key_file.empty() || !options.api_keys.empty()),
      anonymous_(std::make_shared<KeyAccount>("", default_limits_)),
      entries_(std::make_shared<const Entries>()) {
  if (const Status status = load(FileReading::at_start); !status.ok())
    throw std::runtime_error(status.message());
}

void KeyStore::set_default_limits(const KeyLimits& limits) {
  default_limits_ = limits;
}

Status KeyStore::reload() {
  return load(FileReading::again);
}

Status KeyStore::load(FileReading reading) try {
  std::vector<ApiKey> keys;
  if (!options_.api_keys.empty()) {
    StatusOr<std::vector<ApiKey>> listed = parse_key_list(options_.api_keys, default_limits_);
    if (!listed.ok()) return failed("security.api_keys: " + listed.status().message());
    keys = std::move(listed).value();
  }
  if (!options_.key_file.empty()) {
    const std::string name = "security.key_file: " + options_.key_file + ": ";
    const std::string text = read_secret_file("security.key_file", options_.key_file, reading);
    StatusOr<std::vector<ApiKey>> filed = parse_key_file(text, default_limits_);
    if (!filed.ok()) return failed(name + filed.status().message());
    std::vector<ApiKey> more = std::move(filed).value();
    std::move(more.begin(), more.end(), std::back_inserter(keys));
    if (const std::string problem = problem_of(keys); !problem.empty()) {
      return failed(name + problem + " (security.api_keys included)");
    }
  }

  anonymous_->set_limits(default_limits_);
  const std::lock_guard lock(mutex_);
  std::unordered_map<std::string, std::shared_ptr<KeyAccount>> known;
  for (const Entry& entry : *entries_) known.emplace(entry.account->name(), entry.account);
  auto entries = std::make_shared<Entries>();
  for (const ApiKey& key : keys) {
    const auto found = known.find(key.name);
    if (found == known.end()) {
      entries->push_back({key.digest, std::make_shared<KeyAccount>(key.name, key.limits)});
    } else {
      found->second->set_limits(key.limits);
      entries->push_back({key.digest, found->second});
    }
  }
  entries_ = std::move(entries);
  return {};
} catch (const std::runtime_error& error) {
  return failed(error.what());
}

std::size_t KeyStore::size() const {
  return entries()->size();
}

std::shared_ptr<const KeyStore::Entries> KeyStore::entries() const {
  const std::lock_guard lock(mutex_);
  return entries_;
}

StatusOr<std::shared_ptr<KeyAccount>> KeyStore::account_of(std::string_view authorization) const {
  if (!needs_key_) return anonymous_;
  static constexpr std::string_view kScheme = "bearer ";
  const bool is_bearer =
      authorization.size() > kScheme.size() &&
      std::equal(kScheme.begin(), kScheme.end(), authorization.begin(),
                 [](char a, char b) { return a == (b == ' ' ? b : (b | 0x20)); });
  if (!is_bearer) {
    return Status(StatusCode::unauthenticated,
                  "a key is required: send it as \"Authorization: Bearer KEY\"");
  }
  std::string_view key = authorization.substr(kScheme.size());
  key.remove_prefix(std::min(key.find_first_not_of(' '), key.size()));
  key.remove_suffix(key.size() - (key.find_last_not_of(' ') + 1));
  const Digest digest = digest_of(key);
  // Every entry is compared, and each in constant time: how long it takes says nothing of how near
  // a guess was.
  std::shared_ptr<KeyAccount> account;
  for (const Entry& entry : *entries()) {
    if (CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0) {
      account = entry.account;
    }
  }
  if (account == nullptr) return Status(StatusCode::unauthenticated, "the key is not valid");
  return account;
}

}  // namespace mobius
