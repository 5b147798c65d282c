#include "server/security/key_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/scratch_folder.h"

namespace mobius {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kAlice[] = "mk-alice-0123456789";
constexpr char kBob[] = "mk-bob-0123456789ab";

std::string bearer(std::string_view key) {
  return "Bearer " + std::string(key);
}

TEST(KeyFile, HoldsNamesKeysAndLimits) {
  const auto keys = parse_key_file(
      "# who may come\n"
      "\n"
      "alice mk-alice-0123456789\r\n"
      "  bob\tmk-bob-0123456789ab  tokens_per_minute=7 concurrent_requests=0",
      {.requests_per_minute = 1, .tokens_per_minute = 2, .concurrent_requests = 3});
  ASSERT_TRUE(keys.ok()) << keys.status().message();
  ASSERT_EQ(keys.value().size(), 2U);
  const ApiKey& alice = keys.value()[0];
  EXPECT_EQ(alice.name, "alice");
  EXPECT_EQ(alice.limits.requests_per_minute, 1);
  EXPECT_EQ(alice.limits.tokens_per_minute, 2);
  EXPECT_EQ(alice.limits.concurrent_requests, 3);
  const ApiKey& bob = keys.value()[1];
  EXPECT_EQ(bob.name, "bob");
  EXPECT_EQ(bob.limits.requests_per_minute, 1) << "the default";
  EXPECT_EQ(bob.limits.tokens_per_minute, 7);
  EXPECT_EQ(bob.limits.concurrent_requests, 0) << "no limit, said so";
}

struct BadFile {
  const char* text;
  const char* problem;
};

class BadKeyFile : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadKeyFile, IsRefusedWithoutShowingAKey) {
  const auto keys = parse_key_file(GetParam().text, {});
  ASSERT_FALSE(keys.ok());
  EXPECT_THAT(keys.status().message(), HasSubstr(GetParam().problem));
  EXPECT_THAT(keys.status().message(), Not(HasSubstr("0123456789")));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadKeyFile,
    ::testing::Values(
        BadFile{"", "has no keys"}, BadFile{"# nobody\n\n", "has no keys"},
        BadFile{"mk-alice-0123456789\n", "line 1: must be a name and a key"},
        BadFile{"\nal!ce mk-alice-0123456789\n", "line 2: the name must have"},
        BadFile{"alice 0123456789\n", "line 1: alice: the key has 10 characters; must have 16"},
        BadFile{"alice mk-alice-0123456789\xc3\xbc\n", "other than printable ASCII"},
        BadFile{"alice mk-alice-0123456789 rpm=3\n", "what follows the key must be"},
        BadFile{"alice mk-alice mk-0123456789\n", "the key has 8 characters"},
        BadFile{"alice mk-alice-0123456789 mk-alice-0123456789\n", "what follows the key must be"},
        BadFile{"alice mk-alice-0123456789 tokens_per_minute=-1\n", "tokens_per_minute is \"-1\""},
        BadFile{"alice mk-alice-0123456789 tokens_per_minute=3x\n", "tokens_per_minute is \"3x\""},
        BadFile{"alice mk-alice-0123456789\nalice mk-bob-0123456789\n", "the name alice appears"},
        BadFile{"alice mk-alice-0123456789\nbob mk-alice-0123456789\n",
                "the key of bob appears twice"}));

TEST(KeyFile, KeyLengthsAreBounded) {
  EXPECT_TRUE(parse_key_file("a " + std::string(16, 'k'), {}).ok());
  EXPECT_FALSE(parse_key_file("a " + std::string(15, 'k'), {}).ok());
  EXPECT_TRUE(parse_key_file("a " + std::string(256, 'k'), {}).ok());
  EXPECT_FALSE(parse_key_file("a " + std::string(257, 'k'), {}).ok());
}

TEST(KeyList, IsSeparatedByCommas) {
  const auto keys = parse_key_list("mk-alice-0123456789, mk-bob-0123456789ab", {});
  ASSERT_TRUE(keys.ok()) << keys.status().message();
  ASSERT_EQ(keys.value().size(), 2U);
  EXPECT_EQ(keys.value()[1].name, "environment-2");
  for (const char* bad : {"", ",", "mk-alice-0123456789,", "short", "mk-a b-0123456789012345"}) {
    EXPECT_FALSE(parse_key_list(bad, {}).ok()) << bad;
  }
}

TEST(KeyStore, WithoutKeysEverybodySharesOneAccount) {
  const KeyStore store({});
  EXPECT_FALSE(store.needs_key());
  const auto one = store.account_of("");
  const auto other = store.account_of("Bearer whatever");
  ASSERT_TRUE(one.ok() && other.ok());
  EXPECT_EQ(one.value(), other.value());
  EXPECT_EQ(one.value()->name(), "");
}

TEST(KeyStore, TakesKeysOfListAndFile) {
  const ScratchFolder folder;
  const auto file = folder.path() / "keys";
  std::ofstream(file) << "bob " << kBob << '\n';
  ServerConfig::Security options;
  options.key_file = file.string();
  options.api_keys = kAlice;
  const KeyStore store(options);
  EXPECT_TRUE(store.needs_key());
  EXPECT_EQ(store.size(), 2U);
  EXPECT_EQ(store.account_of(bearer(kAlice)).value()->name(), "environment-1");
  EXPECT_EQ(store.account_of(bearer(kBob)).value()->name(), "bob");
  EXPECT_EQ(store.account_of(std::string("bEARER   ") + kBob + "  ").value()->name(), "bob");
}

TEST(KeyStore, RefusesWhatIsNoKey) {
  ServerConfig::Security options;
  options.api_keys = kAlice;
  const KeyStore store(options);
  const std::string key = kAlice;
  for (const std::string& wrong :
       {std::string(), std::string("Bearer"), std::string("Bearer "), key, "Basic " + key,
        bearer(key.substr(1)), bearer(key.substr(0, key.size() - 1)), bearer(key + "x"),
        bearer("MK-alice-0123456789"), bearer(std::string(100000, 'x'))}) {
    const auto account = store.account_of(wrong);
    ASSERT_FALSE(account.ok()) << wrong;
    EXPECT_EQ(account.status().code(), StatusCode::unauthenticated);
    EXPECT_THAT(account.status().message(), Not(HasSubstr("alice")));
  }
}

TEST(KeyStore, ReloadsAndKeepsWhatWasUsed) {
  const ScratchFolder folder;
  const auto file = folder.path() / "keys";
  std::ofstream(file) << "alice " << kAlice << " requests_per_minute=1\n";
  ServerConfig::Security options;
  options.key_file = file.string();
  KeyStore store(options);
  const auto alice = store.account_of(bearer(kAlice)).value();
  EXPECT_TRUE(alice->begin().ok());

  // Alice has a new key, Bob is new.
  std::ofstream(file) << "alice mk-alice-9876543210 requests_per_minute=1\nbob " << kBob << '\n';
  ASSERT_TRUE(store.reload().ok());
  EXPECT_FALSE(store.account_of(bearer(kAlice)).ok());
  EXPECT_TRUE(store.account_of(bearer(kBob)).ok());
  const auto again = store.account_of(bearer("mk-alice-9876543210")).value();
  EXPECT_EQ(again, alice);
  EXPECT_EQ(again->begin().code(), StatusCode::resource_exhausted) << "her minute is not over";
}

TEST(KeyStore, AFileThatCannotBeUsedChangesNothing) {
  const ScratchFolder folder;
  const auto file = folder.path() / "keys";
  std::ofstream(file) << "alice " << kAlice << '\n';
  ServerConfig::Security options;
  options.key_file = file.string();
  KeyStore store(options);
  for (const char* text : {"", "alice short\n"}) {
    std::ofstream(file) << text;
    const Status status = store.reload();
    EXPECT_THAT(status.message(), HasSubstr(file.string()));
    EXPECT_TRUE(store.account_of(bearer(kAlice)).ok());
  }
  std::filesystem::remove(file);
  EXPECT_THAT(store.reload().message(), HasSubstr("No such file"));
  EXPECT_TRUE(store.account_of(bearer(kAlice)).ok());
}

TEST(KeyStore, DoesNotStartWithoutUsableKeys) {
  ServerConfig::Security missing;
  missing.key_file = "/nonexistent/keys";
  EXPECT_THROW(KeyStore{missing}, std::runtime_error);
  ServerConfig::Security directory;
  directory.key_file = "/";
  EXPECT_THROW(KeyStore{directory}, std::runtime_error);
  ServerConfig::Security weak;
  weak.api_keys = "secret";
  EXPECT_THROW(KeyStore{weak}, std::runtime_error);
}

}  // namespace
}  // namespace mobius
