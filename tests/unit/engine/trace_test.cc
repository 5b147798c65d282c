// A trace of long-context conversations, real (Mooncake) or made from a seed: its requests against
// the simulated model, tokens compared, and its load against a scheduler on an imagined device.

#include "tests/unit/engine/trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "tests/unit/engine/replay.h"
#include "tests/unit/engine/support.h"

namespace mobius {
namespace {

// ---- tokens --------------------------------------------------------------------------------

struct Answers {
  std::vector<Outcome> outcomes;
  std::vector<GenerationRequest> requests;
  std::int64_t steps = 0;
  EngineStats stats;
};

Answers answer(const std::vector<TraceRequest>& lines, bool prefix_cache) {
  // Lengths are divided by 64 (input) and 4 (output), arrivals come on a clock of steps: the
  // longest still takes many steps, and the pool runs out.
  RunnerInfo model = simulated_model(300);
  model.page_tokens = 8;
  model.limits = {96, 24, 2400};
  EngineOptions options;
  options.max_running = 24;
  options.step_tokens = 96;
  options.prefix_cache = prefix_cache;
  Bench bench(options, model);

  Answers out;
  std::vector<std::shared_ptr<Stream>> streams;
  std::size_t next = 0;
  while (next < lines.size() || !bench.loop.idle()) {
    const std::int64_t time_ms = out.steps * 100;
    for (; next < lines.size() && lines[next].arrival_ms <= time_ms; ++next) {
      GenerationRequest request = make_request(0, lines[next].output / 4 + 1, next);
      request.prompt = trace_prompt(lines[next], kTraceBlock / 64, (lines[next].input + 63) / 64);
      out.requests.push_back(std::move(request));
      streams.push_back(bench.add(out.requests.back()));
    }
    bench.step();
    ++out.steps;
  }
  out.outcomes.resize(streams.size());
  for (std::size_t i = 0; i < streams.size(); ++i) out.outcomes[i].take(*streams[i]);
  out.stats = bench.loop.stats();
  return out;
}

void check_answers(const std::vector<TraceRequest>& trace) {
  const Answers with = answer(trace, true);
  ASSERT_EQ(with.outcomes.size(), trace.size());
  for (std::size_t i = 0; i < trace.size(); ++i) {
    const GenerationRequest& request = with.requests[i];
    ASSERT_TRUE(with.outcomes[i].ended());
    EXPECT_EQ(with.outcomes[i].finish().reason, FinishReason::length);
    EXPECT_EQ(
        with.outcomes[i].tokens(),
        expected_tokens(request, simulated_model(), static_cast<std::size_t>(*request.max_tokens)));
  }
  EXPECT_EQ(with.stats.requests_finished, std::ssize(trace));
  EXPECT_EQ(with.stats.pages_used, 0);
  EXPECT_GT(with.stats.cached_tokens, 1000);
  EXPECT_GT(with.stats.preemptions, 10) << "the pool is too large for a test";

  const Answers again = answer(trace, true);
  EXPECT_EQ(again.steps, with.steps);
  EXPECT_EQ(again.stats.preemptions, with.stats.preemptions);

  const Answers without = answer(trace, false);
  EXPECT_EQ(without.stats.cached_tokens, 0);
  EXPECT_GT(without.stats.prompt_tokens, with.stats.prompt_tokens);
  for (std::size_t i = 0; i < trace.size(); ++i) {
    EXPECT_EQ(without.outcomes[i].tokens(), with.outcomes[i].tokens());
  }
}

TEST(Trace, EveryRequestOfARealTraceGetsItsTokens) {
  const auto path = mooncake_trace();
  if (!path) GTEST_SKIP() << "no traces (set MOBIUS_TEST_DATA)";
  check_answers(read_trace(*path, 200));
}

TEST(Trace, EveryRequestOfAMadeTraceGetsItsTokens) {
  check_answers(make_trace(3, 200));
}

// ---- load ----------------------------------------------------------------------------------

ReplayOptions scaled_down(std::int32_t num_pages) {
  ReplayOptions options;
  options.limits = {24, 96, 8, num_pages};
  options.block_tokens = 16;  // 32 times shorter prompts: two pages are a block
  options.output_divisor = 8;
  return options;
}

TEST(Replay, KeepsEveryInvariantInAPoolThatIsTooSmall) {
  for (std::uint32_t seed = 0; seed < 2; ++seed) {
    const auto trace = make_trace(seed, 300);
    ReplayOptions options = scaled_down(700);
    options.stretch = 0.2;
    options.cost.row_ns = 300000;
    for (const auto target : {std::chrono::milliseconds(0), std::chrono::milliseconds(20)}) {
      options.itl_target = target;
      const ReplayResult result = replay(trace, options);
      EXPECT_EQ(result.violation, "");
      EXPECT_EQ(result.finished, std::ssize(trace));
      EXPECT_GT(result.evictions, 1000) << "the pool is too large for a test";
      EXPECT_GT(result.preemptions, 5) << "the pool is too large for a test";
      EXPECT_LE(result.cached_tokens, result.ideal_tokens + result.computed_rows);
      const ReplayResult again = replay(trace, options);
      EXPECT_EQ(again.steps, result.steps);
      EXPECT_EQ(again.seconds, result.seconds);
      EXPECT_EQ(again.cached_tokens, result.cached_tokens);
    }
  }
}

TEST(Replay, FindsWhatAnIdealCacheFindsWhereNothingIsEvicted) {
  const auto trace = make_trace(5, 600);
  ReplayOptions options = scaled_down(40000);
  options.check_every = 50;
  for (const double stretch : {0.05, 1.0}) {
    options.stretch = stretch;
    const ReplayResult result = replay(trace, options);
    EXPECT_EQ(result.violation, "");
    EXPECT_EQ(result.evictions, 0);
    EXPECT_GT(result.ideal_rate(), 0.5);
    EXPECT_GT(result.hit_rate(), result.ideal_rate() - 0.02);
    EXPECT_LE(result.hit_rate(), result.ideal_rate() + 0.02);
  }
}

TEST(Replay, FindsNearlyAllThatARealTraceRepeats) {
  const auto path = mooncake_trace();
  if (!path) GTEST_SKIP() << "no traces (set MOBIUS_TEST_DATA)";
  const auto trace = read_trace(*path, 1500);
  ReplayOptions options = scaled_down(150000);
  options.check_every = 1000;
  const ReplayResult result = replay(trace, options);
  EXPECT_EQ(result.violation, "");
  EXPECT_EQ(result.finished, std::ssize(trace));
  EXPECT_EQ(result.evictions, 0);
  EXPECT_GT(result.ideal_rate(), 0.1);
  EXPECT_GT(result.hit_rate(), result.ideal_rate() - 0.02);
}

double percentile(std::vector<double> values, double share) {
  const auto index = static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::ranges::nth_element(values, values.begin() + index);
  return values[static_cast<std::size_t>(index)];
}

TEST(Replay, ChunksFollowTheTargetBetweenTokens) {
  const auto trace = make_trace(7, 300);
  ReplayOptions options = scaled_down(4000);
  options.limits.step_rows = 512;
  options.cost.row_ns = 300000;  // 512 rows: 159 ms
  options.output_divisor = 40;
  options.stretch = 0.1;
  options.check_every = 20;
  const ReplayResult fixed = replay(trace, options);
  options.itl_target = std::chrono::milliseconds(40);
  const ReplayResult sized = replay(trace, options);
  EXPECT_EQ(fixed.violation, "");
  EXPECT_EQ(sized.violation, "");
  EXPECT_GT(percentile(fixed.itl, 0.99), 0.1);
  EXPECT_LT(percentile(sized.itl, 0.99), 0.055);
  EXPECT_EQ(sized.finished, std::ssize(trace));
}

}  // namespace
}  // namespace mobius
