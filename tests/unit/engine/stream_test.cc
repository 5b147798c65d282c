#include "engine/stream.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "engine/status.h"

namespace mobius {
namespace {

TokenDelta delta(std::int32_t token) {
  TokenDelta out;
  out.token.token = token;
  return out;
}

TEST(Stream, KeepsOrderAndEmptiesOnTake) {
  Stream stream;
  EXPECT_TRUE(stream.take().empty());
  stream.push(delta(1));
  stream.push(delta(2));
  stream.push(Finish{});
  const std::vector<Event> events = stream.take();
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(std::get<TokenDelta>(events[0]).token.token, 1);
  EXPECT_EQ(std::get<TokenDelta>(events[1]).token.token, 2);
  EXPECT_TRUE(std::holds_alternative<Finish>(events[2]));
  EXPECT_TRUE(stream.take().empty());
}

TEST(Stream, NewerProgressReplacesOneThatNobodyTook) {
  Stream stream;
  stream.push(PrefillProgress{100, 0, 10});
  stream.push(PrefillProgress{100, 0, 20});
  std::vector<Event> events = stream.take();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(std::get<PrefillProgress>(events[0]).done, 20);
  stream.push(PrefillProgress{100, 0, 30});
  stream.push(delta(1));
  events = stream.take();
  ASSERT_EQ(events.size(), 2U) << "progress that was followed by a token stays";
}

TEST(Stream, NotifiesWhenItStopsBeingEmpty) {
  Stream stream;
  int calls = 0;
  stream.on_events([&] { ++calls; });
  EXPECT_EQ(calls, 0);
  stream.push(delta(1));
  stream.push(delta(2));
  EXPECT_EQ(calls, 1);
  stream.take();
  stream.push(delta(3));
  EXPECT_EQ(calls, 2);
  stream.on_events({});
  stream.take();
  stream.push(delta(4));
  EXPECT_EQ(calls, 2);
  stream.on_events([&] { ++calls; });
  EXPECT_EQ(calls, 3) << "an event waits already";
}

TEST(Stream, ConsumerMayTakeInsideNotify) {
  Stream stream;
  std::size_t taken = 0;
  stream.on_events([&] { taken += stream.take().size(); });
  stream.push(delta(1));
  stream.push(delta(2));
  EXPECT_EQ(taken, 2U);
}

TEST(Stream, CarriesEverythingBetweenThreads) {
  constexpr std::int32_t kEvents = 20000;
  Stream stream;
  std::mutex mutex;
  std::condition_variable wake;
  bool ready = false;
  stream.on_events([&] {
    const std::scoped_lock lock(mutex);
    ready = true;
    wake.notify_one();
  });
  std::thread producer([&] {
    for (std::int32_t i = 0; i < kEvents; ++i) stream.push(delta(i));
    stream.push(Finish{});
  });
  std::int32_t next = 0;
  bool ended = false;
  while (!ended) {
    {
      std::unique_lock lock(mutex);
      wake.wait(lock, [&] { return ready; });
      ready = false;
    }
    for (const Event& event : stream.take()) {
      if (const auto* seen = std::get_if<TokenDelta>(&event)) {
        ASSERT_EQ(seen->token.token, next++);
      } else {
        ended = true;
      }
    }
  }
  EXPECT_EQ(next, kEvents);
  producer.join();
}

TEST(Status, CarriesCodeFieldAndMessage) {
  EXPECT_TRUE(Status().ok());
  const Status status = Status::invalid("top_p", "top_p is 2");
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.code(), StatusCode::invalid_argument);
  EXPECT_EQ(status.field(), "top_p");
  const StatusOr<int> failed(status);
  EXPECT_FALSE(failed.ok());
  EXPECT_EQ(failed.status().message(), "top_p is 2");
  const StatusOr<int> fine(7);
  EXPECT_TRUE(fine.ok());
  EXPECT_TRUE(fine.status().ok());
  EXPECT_EQ(fine.value(), 7);
}

TEST(Status, EveryCodeHasItsOwnName) {
  std::set<std::string_view> names;
  const auto codes = {StatusCode::ok,
                      StatusCode::cancelled,
                      StatusCode::unknown,
                      StatusCode::invalid_argument,
                      StatusCode::deadline_exceeded,
                      StatusCode::not_found,
                      StatusCode::permission_denied,
                      StatusCode::resource_exhausted,
                      StatusCode::failed_precondition,
                      StatusCode::unimplemented,
                      StatusCode::internal,
                      StatusCode::unavailable,
                      StatusCode::unauthenticated};
  for (const StatusCode code : codes) names.insert(name_of(code));
  EXPECT_EQ(names.size(), codes.size());
  EXPECT_EQ(name_of(StatusCode::deadline_exceeded), "deadline_exceeded");
}

}  // namespace
}  // namespace mobius
