// Who gets a place: priorities, fairness among clients, short prompts beside long ones, and that
// nobody waits for ever.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "engine/chunk_sizer.h"
#include "engine/client_shares.h"
#include "engine/scheduler.h"

namespace mobius {
namespace {

// A scheduler and sequences that leave when they have generated what they shall.
class Load {
 public:
  explicit Load(const SchedulerLimits& limits) : scheduler_(limits) {}

  SequenceId add(std::int32_t prompt, std::int32_t generate, std::int32_t priority = 0,
                 const std::string& client = {}) {
    SequenceSpec spec;
    spec.id = next_;
    spec.prompt_tokens = prompt;
    spec.priority = priority;
    spec.client = client;
    scheduler_.add(spec);
    left_[next_] = generate;
    clients_[next_] = client;
    return next_++;
  }

  void step(std::int32_t prefill_rows = Scheduler::kNoLimit) {
    const auto plan = scheduler_.plan(prefill_rows);
    const std::vector<PlannedSlice> slices(plan.begin(), plan.end());
    rows_.clear();
    for (const PlannedSlice& slice : slices) rows_[slice.sequence] = slice.count;
    scheduler_.finish_step();
    for (const PlannedSlice& slice : slices) {
      if (!slice.samples) continue;
      ++generated_[clients_[slice.sequence]];
      if (--left_[slice.sequence] > 0) continue;
      ASSERT_TRUE(scheduler_.remove(slice.sequence));
      left_.erase(slice.sequence);
      order_.push_back(slice.sequence);
    }
    ++steps_;
    ASSERT_EQ(scheduler_.check_invariants(), "");
  }

  // Steps until this one has left; how many it took, or 0 if it takes for ever.
  int run_until_gone(SequenceId id, int limit = 20000) {
    const int before = steps_;
    while (left_.contains(id) && steps_ - before < limit) step();
    return left_.contains(id) ? 0 : steps_ - before;
  }
  void run() {
    while (!left_.empty() && steps_ < 200000 && !testing::Test::HasFatalFailure()) step();
    EXPECT_TRUE(left_.empty());
  }

  bool waits(SequenceId id) const { return left_.contains(id) && !scheduler_.is_running(id); }
  std::int32_t rows(SequenceId id) { return rows_[id]; }
  std::size_t place(SequenceId id) const {
    return static_cast<std::size_t>(std::ranges::find(order_, id) - order_.begin());
  }
  std::int64_t generated(const std::string& client) { return generated_[client]; }
  const Scheduler& scheduler() const { return scheduler_; }

 private:
  Scheduler scheduler_;
  SequenceId next_ = 0;
  int steps_ = 0;
  std::map<SequenceId, std::int32_t> left_;
  std::map<SequenceId, std::string> clients_;
  std::map<SequenceId, std::int32_t> rows_;
  std::map<std::string, std::int64_t> generated_;
  std::vector<SequenceId> order_;
};

// Page of 4 tokens.
SchedulerLimits limits(std::int32_t max_running, std::int32_t step_rows, std::int32_t num_pages) {
  return {max_running, step_rows, 4, num_pages};
}

TEST(Priority, GoesBeforeOthersThatWait) {
  Load load(limits(1, 16, 100));
  load.add(4, 5);
  const SequenceId usual = load.add(4, 5);
  const SequenceId later = load.add(4, 5, 10);
  const SequenceId urgent = load.add(4, 5, -1);
  load.run();
  EXPECT_LT(load.place(urgent), load.place(usual));
  EXPECT_LT(load.place(usual), load.place(later));
}

TEST(Priority, TakesThePlaceOfALessImportantOne) {
  Load load(limits(2, 16, 100));
  const SequenceId first = load.add(4, 50, 5);
  const SequenceId second = load.add(4, 50, 5);
  load.step();
  const SequenceId urgent = load.add(4, 3);
  load.step();
  EXPECT_FALSE(load.waits(urgent));
  EXPECT_FALSE(load.waits(first));
  EXPECT_TRUE(load.waits(second)) << "the youngest gives way";
  EXPECT_EQ(load.scheduler().preemptions(), 1);
  load.run();
  EXPECT_EQ(load.place(urgent), 0U);
}

TEST(Priority, TakesNothingFromItsEquals) {
  Load load(limits(2, 16, 100));
  load.add(4, 50);
  load.add(4, 50);
  load.step();
  const SequenceId next = load.add(4, 3);
  for (int i = 0; i < 20; ++i) load.step();
  EXPECT_TRUE(load.waits(next));
  EXPECT_EQ(load.scheduler().preemptions(), 0);
  load.run();
}

TEST(Priority, NobodyGivesWayInVain) {
  Load load(limits(4, 16, 20));
  load.add(60, 5);  // holds 15 of 20 pages, and is as important
  const SequenceId lesser = load.add(4, 20, 5);
  load.step();
  ASSERT_FALSE(load.waits(lesser));
  const SequenceId urgent = load.add(30, 3);
  load.step();
  EXPECT_TRUE(load.waits(urgent)) << "8 pages are not there even without the lesser one";
  EXPECT_FALSE(load.waits(lesser));
  EXPECT_EQ(load.scheduler().preemptions(), 0);
  load.run();
}

TEST(Priority, NobodyStarvesUnderAStreamOfMoreImportantOnes) {
  Load load(limits(2, 16, 30));
  std::vector<SequenceId> lesser;
  for (int i = 0; i < 5; ++i) lesser.push_back(load.add(20, 10, 50));
  bool all = false;
  for (int steps = 0; steps < 3000 && !all; ++steps) {
    while (load.scheduler().waiting() < 8) load.add(8, 6, -50);
    load.step();
    all = std::ranges::none_of(
        lesser, [&](SequenceId id) { return load.waits(id) || load.scheduler().is_running(id); });
  }
  EXPECT_TRUE(all);
}

TEST(Fairness, AClientOfManyRequestsWaitsBehindItself) {
  Load load(limits(2, 16, 200));
  std::vector<SequenceId> greedy;
  for (int i = 0; i < 40; ++i) greedy.push_back(load.add(8, 10, 0, "greedy"));
  load.step();
  const SequenceId modest = load.add(8, 10, 0, "modest");
  ASSERT_GT(load.run_until_gone(modest), 0);
  EXPECT_LE(load.place(modest), 4U) << "two ran already, and one of four goes to the oldest";
  load.run();
}

TEST(Fairness, SharesFollowTokensNotRequests) {
  // Both always have something waiting; one's requests are four times as large.
  Load load(limits(3, 64, 400));
  std::int64_t large = 0;
  std::int64_t small = 0;
  for (int i = 0; i < 4000; ++i) {
    while (large - load.generated("large") / 40 < 8) {
      load.add(4, 40, 0, "large");
      ++large;
    }
    while (small - load.generated("small") / 10 < 8) {
      load.add(4, 10, 0, "small");
      ++small;
    }
    load.step();
  }
  const double share = static_cast<double>(load.generated("large")) /
                       static_cast<double>(load.generated("large") + load.generated("small"));
  // Half each, but for the fourth admission that goes by age.
  EXPECT_GT(share, 0.4);
  EXPECT_LT(share, 0.68);
}

TEST(Fairness, OneClientIsServedInOrder) {
  Load load(limits(1, 16, 100));
  std::vector<SequenceId> ids;
  for (int i = 0; i < 20; ++i) ids.push_back(load.add(4 + i % 3, 3));
  load.run();
  for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(load.place(ids[i]), i);
}

TEST(ClientShares, ComingBackSavesUpNothing) {
  ClientShares shares;
  const auto busy = shares.enter("busy");
  busy->second.served = 1000;
  const auto fresh = shares.enter("new");
  EXPECT_EQ(fresh->second.served, 1000);
  fresh->second.served += 50;
  const auto again = shares.enter("new");
  EXPECT_EQ(again->second.served, 1050) << "who is there keeps the count";
  shares.leave(fresh);
  shares.leave(again);
  EXPECT_EQ(shares.size(), 1U) << "clients without requests are forgotten";
  EXPECT_EQ(shares.enter("new")->second.served, 1000);
  shares.leave(busy);
}

TEST(Overtaking, ShortOnesRunWhileALongOneWaitsForRoom) {
  Load load(limits(8, 16, 100));
  const SequenceId running = load.add(200, 60);  // 50 pages, more later
  load.step();
  const SequenceId longest = load.add(320, 4);  // 80 pages
  const SequenceId shorter = load.add(12, 4);
  load.step();
  EXPECT_TRUE(load.waits(longest));
  EXPECT_FALSE(load.waits(shorter));
  ASSERT_GT(load.run_until_gone(shorter), 0);
  EXPECT_TRUE(load.waits(longest));
  load.run();
  EXPECT_LT(load.place(running), load.place(longest));
  EXPECT_EQ(load.scheduler().preemptions(), 0);
}

TEST(Overtaking, DoesNotDelayTheLongOne) {
  Load load(limits(8, 64, 100));
  const SequenceId running = load.add(200, 5);
  load.step();
  const SequenceId longest = load.add(380, 4);  // with its margin it needs the whole pool
  std::vector<SequenceId> shorter;
  for (int i = 0; i < 6; ++i) shorter.push_back(load.add(12, 300));
  ASSERT_GT(load.run_until_gone(running), 0);
  load.step();
  EXPECT_FALSE(load.waits(longest)) << "as if nobody had overtaken it";
  EXPECT_GT(load.scheduler().preemptions(), 0);
  load.run();
}

TEST(Overtaking, EqualsKeepTheirOrder) {
  Load load(limits(8, 16, 100));
  load.add(200, 60);
  load.step();
  const SequenceId first = load.add(320, 4);
  const SequenceId second = load.add(100, 4);  // would fit, but is not much shorter
  load.step();
  EXPECT_TRUE(load.waits(first));
  EXPECT_TRUE(load.waits(second));
  load.run();
  EXPECT_LT(load.place(first), load.place(second));
}

TEST(PrefillRows, AreLimitedBesideDecodesOnly) {
  Load load(limits(4, 64, 400));
  const SequenceId longest = load.add(1000, 2);
  load.step(8);
  EXPECT_EQ(load.rows(longest), 64) << "nobody waits for a token";
  const SequenceId shorter = load.add(4, 50);
  load.step(8);
  EXPECT_EQ(load.rows(shorter) + load.rows(longest), 64);
  load.step(8);
  EXPECT_EQ(load.rows(shorter), 1);
  EXPECT_EQ(load.rows(longest), 8);
  load.step(0);
  EXPECT_EQ(load.rows(shorter), 1);
  EXPECT_EQ(load.rows(longest), 1) << "a prompt always moves";
  load.run();
}

TEST(WaitingTokens, AreThoseOfSequencesThatWait) {
  Load load(limits(1, 16, 100));
  load.add(4, 5);
  load.add(30, 5);
  load.add(7, 5);
  EXPECT_EQ(load.scheduler().waiting_tokens(), 41);
  load.step();
  EXPECT_EQ(load.scheduler().waiting_tokens(), 37);
  load.run();
  EXPECT_EQ(load.scheduler().waiting_tokens(), 0);
}

using std::chrono::milliseconds;

TEST(ChunkSizer, WithoutATargetChunksAreWhatFits) {
  ChunkSizer sizer(milliseconds(0), 512);
  EXPECT_EQ(sizer.rows(), 512);
  sizer.observe(512, milliseconds(10000));
  EXPECT_EQ(sizer.rows(), 512);
}

TEST(ChunkSizer, ComesToTheTargetAndStaysThere) {
  // 10 ms and 0.1 ms a row: 400 rows take 50 ms.
  ChunkSizer sizer(milliseconds(50), 512);
  const auto time = [](std::int32_t rows) { return std::chrono::microseconds(10000 + 100 * rows); };
  EXPECT_LE(sizer.rows(), 16) << "nothing is known yet";
  for (int i = 0; i < 40; ++i) sizer.observe(sizer.rows(), time(sizer.rows()));
  for (int i = 0; i < 100; ++i) {
    EXPECT_LE(time(sizer.rows()), milliseconds(52));
    EXPECT_GE(time(sizer.rows()), milliseconds(45));
    sizer.observe(sizer.rows(), time(sizer.rows()));
  }
}

TEST(ChunkSizer, OneSlowStepHalvesAtMost) {
  ChunkSizer sizer(milliseconds(50), 512);
  sizer.observe(512, milliseconds(20));
  EXPECT_EQ(sizer.rows(), 512);
  sizer.observe(512, milliseconds(60000));
  EXPECT_EQ(sizer.rows(), 256);
}

TEST(ChunkSizer, KeepsToItsLimits) {
  ChunkSizer sizer(milliseconds(1), 100);
  for (int i = 0; i < 50; ++i) sizer.observe(sizer.rows(), milliseconds(500));
  EXPECT_EQ(sizer.rows(), 16);
  for (int i = 0; i < 50; ++i) sizer.observe(sizer.rows(), std::chrono::nanoseconds(0));
  EXPECT_EQ(sizer.rows(), 100);
  EXPECT_EQ(ChunkSizer(milliseconds(1), 5).rows(), 5);
  sizer.observe(0, milliseconds(500));
  EXPECT_EQ(sizer.rows(), 100) << "a step without prompt rows says nothing";
}

TEST(ChunkSizer, AShortChunkThatWasFastSaysNothingAgainstLongOnes) {
  ChunkSizer sizer(milliseconds(50), 512);
  sizer.observe(400, milliseconds(49));
  const std::int32_t before = sizer.rows();
  sizer.observe(3, milliseconds(5));
  EXPECT_EQ(sizer.rows(), before);
}

}  // namespace
}  // namespace mobius
