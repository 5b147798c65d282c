#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <stdexcept>
#include <vector>

namespace mobius {
namespace {

// Follows a scheduler from outside, by what it plans alone, and checks each plan.
class Watched {
 public:
  explicit Watched(const SchedulerLimits& limits) : limits_(limits), scheduler_(limits) {}

  SequenceId add(std::int32_t prompt, std::int32_t generate) {
    scheduler_.add({.id = next_, .prompt_tokens = prompt});
    known_[next_] = {prompt, 0, generate, 0};
    return next_++;
  }

  void remove(SequenceId id) {
    EXPECT_TRUE(scheduler_.remove(id));
    known_.erase(id);
  }

  // One step. Sequences that have generated all they shall leave.
  std::vector<PlannedSlice> step() {
    const std::int64_t preemptions = scheduler_.preemptions();
    const auto plan = scheduler_.plan();
    std::vector<PlannedSlice> slices(plan.begin(), plan.end());
    EXPECT_EQ(slices.empty(), known_.empty());
    EXPECT_EQ(scheduler_.check_invariants(), "");

    // Whoever waits has nothing in the cache (any more).
    for (auto& [id, expected] : known_) {
      if (!scheduler_.is_running(id)) expected.computed = 0;
    }
    std::int32_t rows = 0;
    std::set<SequenceId> seen;
    std::set<PageId> pages;
    bool prefill_seen = false;
    for (const PlannedSlice& slice : slices) {
      Expected& expected = known_.at(slice.sequence);
      EXPECT_TRUE(seen.insert(slice.sequence).second) << "two slices of a sequence";
      // Preempted and admitted again in one go.
      if (scheduler_.preemptions() > preemptions && slice.first == 0) expected.computed = 0;
      EXPECT_EQ(slice.first, expected.computed) << "rows lost or repeated";
      const std::int32_t end = slice.first + slice.count;
      const std::int32_t tokens = expected.prompt + expected.generated;
      EXPECT_GT(slice.count, 0);
      EXPECT_LE(end, slice.prompt ? expected.prompt : tokens);
      EXPECT_EQ(slice.prompt, slice.first < expected.prompt);
      EXPECT_EQ(slice.samples, end == tokens);
      EXPECT_GE(static_cast<std::int32_t>(slice.pages.size()) * limits_.page_tokens, end);
      for (const PageId page : slice.pages) {
        EXPECT_TRUE(pages.insert(page).second) << "a page of two sequences";
      }
      rows += slice.count;
      const bool decode = !slice.prompt && slice.samples && slice.count == 1;
      EXPECT_FALSE(decode && prefill_seen) << "decodes come first";
      prefill_seen |= !decode;
      expected.computed = end;
    }
    EXPECT_LE(rows, limits_.step_rows);
    EXPECT_LE(scheduler_.running(), limits_.max_running);
    check_every_decode_is_in(seen);

    scheduler_.finish_step();
    for (const PlannedSlice& slice : slices) {
      Expected& expected = known_.at(slice.sequence);
      if (slice.samples && ++expected.generated == expected.generate) remove(slice.sequence);
    }
    EXPECT_EQ(scheduler_.check_invariants(), "");
    return slices;
  }

  // Steps until all have left; returns how many it took.
  int run() {
    int steps = 0;
    for (; !known_.empty() && !testing::Test::HasFailure(); ++steps) {
      if (steps > 200000) {
        ADD_FAILURE() << "no end in sight";
        break;
      }
      step();
    }
    EXPECT_EQ(scheduler_.pages().used(), 0);
    return steps;
  }

  bool unfinished(SequenceId id) const { return known_.contains(id); }
  std::vector<SequenceId> ids() const {
    std::vector<SequenceId> out;
    for (const auto& [id, expected] : known_) out.push_back(id);
    return out;
  }
  const Scheduler& scheduler() const { return scheduler_; }

 private:
  struct Expected {
    std::int32_t prompt;
    std::int32_t generated;
    std::int32_t generate;
    std::int32_t computed;
  };

  // Running sequences that only miss their newest token must be in the step.
  void check_every_decode_is_in(const std::set<SequenceId>& in_step) const {
    for (const auto& [id, expected] : known_) {
      if (!scheduler_.is_running(id) || in_step.contains(id)) continue;
      EXPECT_FALSE(expected.generated > 0 &&
                   expected.computed == expected.prompt + expected.generated - 1)
          << "sequence " << id << " was left out while decoding";
    }
  }

  SchedulerLimits limits_;
  Scheduler scheduler_;
  std::map<SequenceId, Expected> known_;
  SequenceId next_ = 0;
};

SchedulerLimits limits(std::int32_t max_running, std::int32_t step_rows, std::int32_t num_pages) {
  return {max_running, step_rows, 4, num_pages};
}

std::int32_t rows_of(const std::vector<PlannedSlice>& slices, SequenceId id) {
  for (const PlannedSlice& slice : slices) {
    if (slice.sequence == id) return slice.count;
  }
  return 0;
}

TEST(Scheduler, RefusesLimitsThatCannotWork) {
  EXPECT_THROW(Scheduler({0, 8, 4, 8}), std::invalid_argument);
  EXPECT_THROW(Scheduler({9, 8, 4, 8}), std::invalid_argument);
  EXPECT_THROW(Scheduler({1, 8, 0, 8}), std::invalid_argument);
  EXPECT_THROW(Scheduler({1, 8, 4, 0}), std::invalid_argument);
}

TEST(Scheduler, CutsAPromptIntoStepsAndThenDecodes) {
  Watched watched(limits(4, 8, 16));
  const SequenceId id = watched.add(20, 3);
  std::vector<std::int32_t> counts;
  while (watched.unfinished(id)) counts.push_back(rows_of(watched.step(), id));
  EXPECT_EQ(counts, (std::vector<std::int32_t>{8, 8, 4, 1, 1}));
  EXPECT_TRUE(watched.step().empty());
}

TEST(Scheduler, DecodesKeepTheirRowsBesideALongPrefill) {
  Watched watched(limits(8, 8, 200));
  std::vector<SequenceId> decoding;
  for (int i = 0; i < 3; ++i) decoding.push_back(watched.add(2, 50));
  watched.step();
  const SequenceId longest = watched.add(300, 1);
  for (int i = 0; i < 40; ++i) {
    const auto slices = watched.step();
    for (const SequenceId id : decoding) EXPECT_EQ(rows_of(slices, id), 1);
    EXPECT_EQ(rows_of(slices, longest), 5) << "the prefill fills the step up";
  }
}

TEST(Scheduler, ShortPromptGetsHalfOfTheRowsBesideALongOne) {
  Watched watched(limits(8, 16, 400));
  const SequenceId longest = watched.add(1000, 1);
  watched.step();
  const SequenceId shorter = watched.add(32, 1);
  int steps = 0;
  while (watched.unfinished(shorter)) {
    const auto slices = watched.step();
    EXPECT_EQ(rows_of(slices, shorter), 8);
    EXPECT_EQ(rows_of(slices, longest), 8);
    ++steps;
  }
  EXPECT_EQ(steps, 4);
}

TEST(Scheduler, OldestPrefillKeepsHalfOfTheRowsUnderAStreamOfShortOnes) {
  Watched watched(limits(8, 16, 400));
  const SequenceId longest = watched.add(800, 1);
  int steps = 0;
  for (; watched.unfinished(longest) && steps < 1000; ++steps) {
    for (int i = 0; i < 4; ++i) watched.add(12, 1);
    watched.step();
  }
  EXPECT_LE(steps, 800 / 8 + 1);
  watched.run();
}

TEST(Scheduler, AdmitsInOrderAndNoMoreThanMaxRunning) {
  Watched watched(limits(2, 64, 100));
  for (int i = 0; i < 5; ++i) watched.add(4, 2);
  EXPECT_EQ(watched.scheduler().waiting(), 5);
  const auto slices = watched.step();
  ASSERT_EQ(slices.size(), 2U);
  EXPECT_EQ(slices[0].sequence, 0);
  EXPECT_EQ(slices[1].sequence, 1);
  EXPECT_EQ(watched.scheduler().waiting(), 3);
  watched.run();
}

TEST(Scheduler, PreemptsTheYoungestAndLosesNobody) {
  // Two sequences grow to 30 of 32 tokens each; the pool holds 40.
  Watched watched(limits(4, 16, 10));
  const SequenceId older = watched.add(6, 24);
  const SequenceId younger = watched.add(6, 24);
  while (watched.unfinished(older)) watched.step();
  EXPECT_GT(watched.scheduler().preemptions(), 0);
  EXPECT_TRUE(watched.unfinished(younger));
  watched.run();
}

TEST(Scheduler, OlderPrefillTakesPagesFromYoungerDecodes) {
  // The short prompt is admitted beside the long one, and its answer then grows into the pages that
  // the long one still needs.
  Watched watched(limits(2, 3, 14));
  const SequenceId longest = watched.add(40, 1);
  const SequenceId shorter = watched.add(4, 40);
  while (watched.unfinished(longest)) EXPECT_GT(rows_of(watched.step(), longest), 0);
  EXPECT_GT(watched.scheduler().preemptions(), 0);
  EXPECT_TRUE(watched.unfinished(shorter));
  watched.run();
}

TEST(Scheduler, PreemptionsAreBounded) {
  // Each sequence needs 8 pages in the end, and 20 are there: without a margin at admission, those
  // that do not fit would come and go with every step.
  Watched watched(limits(16, 64, 20));
  for (int i = 0; i < 16; ++i) watched.add(4, 28);
  const int steps = watched.run();
  EXPECT_LE(watched.scheduler().preemptions(), steps / 4 + 1);
}

TEST(Scheduler, SequenceThatFillsThePoolRunsAlone) {
  Watched watched(limits(4, 16, 10));
  EXPECT_EQ(watched.scheduler().capacity(), 40);
  watched.add(39, 1);
  watched.add(1, 39);
  watched.add(39, 1);
  watched.run();
}

TEST(Scheduler, RemovesInEveryState) {
  Watched watched(limits(2, 8, 40));
  const SequenceId decoding = watched.add(2, 50);
  const SequenceId prefilling = watched.add(100, 1);
  const SequenceId waiting = watched.add(5, 1);
  watched.step();
  watched.step();
  watched.remove(decoding);
  watched.remove(waiting);
  watched.remove(prefilling);
  EXPECT_EQ(watched.scheduler().pages().used(), 0);
  EXPECT_EQ(watched.scheduler().running(), 0);
  EXPECT_EQ(watched.scheduler().waiting(), 0);
  Scheduler empty(limits(2, 8, 40));
  EXPECT_FALSE(empty.remove(7));
}

TEST(Scheduler, RandomWorkloadsKeepEveryInvariant) {
  std::int64_t preemptions = 0;
  for (std::uint32_t seed = 0; seed < 150 && !HasFailure(); ++seed) {
    std::mt19937 random(seed);
    const auto upto = [&](std::int32_t most) {
      return 1 + static_cast<std::int32_t>(random() % static_cast<std::uint32_t>(most));
    };
    const std::int32_t max_running = upto(12);
    const SchedulerLimits chosen{max_running, max_running + upto(40) - 1, upto(8), 2 + upto(40)};
    Watched watched(chosen);
    const auto capacity = static_cast<std::int32_t>(watched.scheduler().capacity());
    int left = 60;
    while (left > 0 && !HasFailure()) {
      if (random() % 2 == 0) {
        const std::int32_t prompt = upto(random() % 3 == 0 ? capacity - 1 : (capacity + 7) / 8);
        if (prompt < capacity) watched.add(prompt, upto(std::min(capacity - prompt, 30)));
        --left;
      }
      if (random() % 10 == 0) {
        const auto ids = watched.ids();
        if (!ids.empty()) watched.remove(ids[random() % ids.size()]);
      }
      watched.step();
    }
    watched.run();
    preemptions += watched.scheduler().preemptions();
  }
  EXPECT_GT(preemptions, 100) << "the workloads are too easy";
}

TEST(Scheduler, SameCallsGiveTheSamePlans) {
  const auto record = [] {
    Watched watched(limits(6, 20, 24));
    std::vector<std::vector<std::int64_t>> plans;
    for (int i = 0; i < 400; ++i) {
      if (i % 5 == 0) watched.add(1 + i % 37, 1 + i % 11);
      plans.emplace_back();
      for (const PlannedSlice& slice : watched.step()) {
        plans.back().insert(plans.back().end(), {slice.sequence, slice.first, slice.count});
      }
    }
    return plans;
  };
  EXPECT_EQ(record(), record());
}

}  // namespace
}  // namespace mobius
