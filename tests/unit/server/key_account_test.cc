#include "server/security/key_account.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mobius {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

const KeyAccount::Clock::time_point kStart{std::chrono::hours(1)};

TEST(KeyAccount, WithoutLimitsTakesEverything) {
  KeyAccount account("a", {}, kStart);
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(account.begin(kStart).ok());
  account.spend(1'000'000'000, kStart);
  EXPECT_TRUE(account.begin(kStart).ok());
}

TEST(KeyAccount, RequestsComeBackEvenly) {
  KeyAccount account("a", {.requests_per_minute = 4}, kStart);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(account.begin(kStart).ok()) << i;
  const Status refused = account.begin(kStart);
  EXPECT_EQ(refused.code(), StatusCode::resource_exhausted);
  EXPECT_EQ(refused.retry_after(), seconds(15));
  EXPECT_THAT(refused.message(), HasSubstr("4 requests per minute"));
  EXPECT_EQ(account.begin(kStart + milliseconds(14'001)).retry_after(), seconds(1));
  EXPECT_TRUE(account.begin(kStart + seconds(15)).ok());
  EXPECT_FALSE(account.begin(kStart + seconds(15)).ok());
}

TEST(KeyAccount, AnHourOfSilenceIsWorthOneMinute) {
  KeyAccount account("a", {.requests_per_minute = 2}, kStart);
  const auto later = kStart + std::chrono::hours(1);
  EXPECT_TRUE(account.begin(later).ok());
  EXPECT_TRUE(account.begin(later).ok());
  EXPECT_FALSE(account.begin(later).ok());
}

TEST(KeyAccount, TokensMayMakeADebt) {
  KeyAccount account("a", {.tokens_per_minute = 60}, kStart);
  EXPECT_TRUE(account.begin(kStart).ok());
  account.spend(180, kStart);
  const Status refused = account.begin(kStart);
  EXPECT_EQ(refused.retry_after(), seconds(121));
  EXPECT_THAT(refused.message(), HasSubstr("60 tokens per minute"));
  EXPECT_FALSE(account.begin(kStart + seconds(120)).ok());
  EXPECT_TRUE(account.begin(kStart + seconds(121)).ok());
}

TEST(KeyAccount, ARefusedRequestCostsNothing) {
  KeyAccount account("a", {.requests_per_minute = 2, .tokens_per_minute = 60}, kStart);
  account.spend(60, kStart);
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(account.begin(kStart).ok());
  EXPECT_TRUE(account.begin(kStart + seconds(1)).ok());
  EXPECT_TRUE(account.begin(kStart + seconds(1)).ok());
}

TEST(KeyAccount, RequestsAtATime) {
  const auto account =
      std::make_shared<KeyAccount>("a", KeyLimits{.concurrent_requests = 2}, kStart);
  ASSERT_TRUE(account->begin(kStart).ok());
  const Admission first(account);
  {
    ASSERT_TRUE(account->begin(kStart).ok());
    const Admission second(account);
    const Status refused = account->begin(kStart);
    EXPECT_EQ(refused.code(), StatusCode::resource_exhausted);
    EXPECT_GT(refused.retry_after(), seconds(0));
  }
  EXPECT_TRUE(account->begin(kStart).ok());
}

TEST(KeyAccount, NewLimitsHoldAtOnceAndForgiveNothing) {
  KeyAccount account("a", {.requests_per_minute = 100}, kStart);
  account.set_limits({.requests_per_minute = 1, .tokens_per_minute = 60}, kStart);
  EXPECT_TRUE(account.begin(kStart).ok());
  EXPECT_FALSE(account.begin(kStart).ok());
  account.spend(600, kStart);
  account.set_limits({.tokens_per_minute = 120}, kStart);
  EXPECT_EQ(account.begin(kStart).retry_after(), seconds(271)) << "540 tokens of debt, and one";
  account.set_limits({}, kStart);
  EXPECT_TRUE(account.begin(kStart).ok());
}

}  // namespace
}  // namespace mobius
