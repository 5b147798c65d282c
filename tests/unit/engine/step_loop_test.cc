#include "engine/step_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/unit/engine/support.h"

namespace mobius {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;

// ---- tokens --------------------------------------------------------------------------------

TEST(StepLoop, GeneratesWhatTheModelSays) {
  Bench bench;
  const GenerationRequest request = make_request(30, 12, 5);
  const auto stream = bench.add(request);
  const Outcome outcome = bench.finish(*stream);
  EXPECT_EQ(outcome.tokens(), expected_tokens(request, bench.runner.info(), 12));
  EXPECT_EQ(outcome.finish().reason, FinishReason::length);
  EXPECT_TRUE(outcome.finish().status.ok());
  EXPECT_EQ(outcome.finish().usage.prompt_tokens, 30);
  EXPECT_EQ(outcome.finish().usage.cached_tokens, 0);
  EXPECT_EQ(outcome.finish().usage.completion_tokens, 12);
  EXPECT_TRUE(outcome.progress.empty()) << "nobody asked for it";
}

TEST(StepLoop, SameTokensAloneInABatchAndPreempted) {
  std::int64_t preemptions = 0;
  for (std::uint32_t seed = 0; seed < 60 && !HasFailure(); ++seed) {
    std::mt19937 random(seed);
    const auto upto = [&](std::uint32_t most) {
      return 1 + static_cast<std::int32_t>(random() % most);
    };
    const std::int32_t max_running = upto(12);
    Bench bench(engine_options(max_running, max_running + upto(40)),
                simulated_model(10 + upto(40)));
    const std::int32_t context = bench.loop.max_context();
    std::vector<GenerationRequest> requests;
    std::vector<std::shared_ptr<Stream>> streams;
    while (requests.size() < 25) {
      const std::int32_t prompt = std::min(context - 1, upto(random() % 4 == 0 ? 60U : 12U));
      GenerationRequest request =
          make_request(static_cast<std::size_t>(prompt), upto(40), random());
      if (random() % 2 == 0) request.attention.decode = AttentionPolicy::moba(4, 3);
      if (random() % 4 == 0) request.max_tokens.reset();
      requests.push_back(request);
      streams.push_back(bench.add(std::move(request)));
      for (std::uint32_t i = random() % 4; i > 0; --i) bench.step();
    }
    bench.run();
    preemptions += bench.loop.stats().preemptions;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      Outcome outcome;
      outcome.take(*streams[i]);
      ASSERT_TRUE(outcome.ended());
      EXPECT_TRUE(outcome.in_order);
      const auto room = context - static_cast<std::int32_t>(requests[i].prompt.size());
      const std::int32_t count = std::min(room, requests[i].max_tokens.value_or(room));
      EXPECT_EQ(outcome.tokens(),
                expected_tokens(requests[i], bench.runner.info(), static_cast<std::size_t>(count)));
      EXPECT_EQ(outcome.finish().reason, FinishReason::length);
    }
  }
  EXPECT_GT(preemptions, 100) << "the workloads are too easy";
}

TEST(StepLoop, OtherSeedOtherTokens) {
  Bench bench;
  GenerationRequest request = make_request(8, 10, 1);
  const auto first = bench.add(request);
  request.sampling.seed = 2;
  const auto second = bench.add(request);
  bench.run();
  Outcome a;
  Outcome b;
  a.take(*first);
  b.take(*second);
  EXPECT_NE(a.tokens(), b.tokens());
}

// ---- tokens of a device that computes by itself ----------------------------------------------

RunnerInfo asynchronous_model() {
  RunnerInfo model = simulated_model();
  model.asynchronous = true;
  return model;
}

TEST(StepLoop, TokensAreHandedOutWhileTheNextStepIsComputed) {
  for (const bool asynchronous : {false, true}) {
    Bench bench({}, asynchronous ? asynchronous_model() : simulated_model());
    const auto stream = bench.add(make_request(8, 3));
    Outcome outcome;
    std::vector<std::size_t> submitted;
    std::vector<std::size_t> computed;
    bench.runner.on_step = [&](const StepBatch&) {
      outcome.take(*stream);
      submitted.push_back(outcome.deltas.size());
    };
    bench.runner.on_result = [&](std::vector<SampledToken>&) {
      outcome.take(*stream);
      computed.push_back(outcome.deltas.size());
    };
    bench.run();
    EXPECT_THAT(submitted, asynchronous ? ElementsAre(0, 0, 1) : ElementsAre(0, 1, 2));
    EXPECT_THAT(computed, ElementsAre(0, 1, 2));
    outcome.take(*stream);
    EXPECT_EQ(outcome.tokens(), expected_tokens(make_request(8, 3), bench.runner.info(), 3));
    EXPECT_TRUE(outcome.ended());
    EXPECT_TRUE(outcome.in_order);
  }
}

TEST(StepLoop, AHeldTokenComesBeforeWhateverEndsItsRequest) {
  enum class End { cancelled, failed, asked };
  for (const End end : {End::cancelled, End::failed, End::asked}) {
    Bench bench({}, asynchronous_model());
    const auto stream = bench.add(make_request(8, 5));
    const auto other = bench.add(make_request(8, 9));
    bench.step();
    Outcome outcome;
    outcome.take(*stream);
    EXPECT_TRUE(outcome.deltas.empty());
    if (end == End::asked) {
      bench.loop.hand_out();
      outcome.take(*stream);
      EXPECT_EQ(outcome.deltas.size(), 1U);
      bench.loop.hand_out();  // nothing is left
      bench.run();
    } else if (end == End::cancelled) {
      stream->cancel();
      bench.step();
    } else {
      bench.loop.end_all({StatusCode::internal, "the model failed"});
      for (auto& ended : bench.loop.take_ended()) ended.stream->push(std::move(ended.finish));
    }
    outcome.take(*stream);
    EXPECT_EQ(outcome.deltas.size(), end == End::asked ? 5U : 1U);
    ASSERT_TRUE(outcome.ended());
    EXPECT_TRUE(outcome.in_order);
    if (end == End::cancelled) {
      EXPECT_EQ(bench.finish(*other).deltas.size(), 9U);
    }
  }
}

TEST(StepLoop, ContextFullEndsWithLength) {
  Bench bench(engine_options(4, 16), simulated_model(5));
  EXPECT_EQ(bench.loop.max_context(), 20);
  GenerationRequest request = make_request(15, 1);
  request.max_tokens.reset();
  const Outcome outcome = bench.finish(*bench.add(request));
  EXPECT_EQ(outcome.deltas.size(), 5U);
  EXPECT_EQ(outcome.finish().reason, FinishReason::length);
}

TEST(StepLoop, PassesLogprobsThrough) {
  Bench bench;
  GenerationRequest request = make_request(5, 2);
  request.sampling.top_logprobs = 3;
  const Outcome outcome = bench.finish(*bench.add(request));
  ASSERT_EQ(outcome.deltas.size(), 2U);
  EXPECT_LE(outcome.deltas[1].token.logprob, 0);
  ASSERT_EQ(outcome.deltas[1].token.top.size(), 3U);
  EXPECT_EQ(outcome.deltas[1].token.top[2].token, 2);
}

TEST(StepLoop, UsesTheSmallestLimitOfOptionsAndRunner) {
  RunnerInfo model = simulated_model();
  model.limits = {8, 3, 50};
  Bench bench(engine_options(64, 512), model);
  EXPECT_EQ(bench.loop.max_running(), 3);
  EXPECT_EQ(bench.loop.max_context(), 50);
  for (int i = 0; i < 6; ++i) bench.add(make_request(20, 5, static_cast<std::uint64_t>(i)));
  bench.run();  // the runner throws on a larger step
}

TEST(StepLoop, RefusesNegativeTargetsAndLimits) {
  EngineOptions late = engine_options(4, 16);
  late.itl_target = std::chrono::milliseconds(-1);
  EXPECT_THROW(Bench{late}, std::invalid_argument);
  EngineOptions few = engine_options(4, 16);
  few.max_waiting_tokens = -1;
  EXPECT_THROW(Bench{few}, std::invalid_argument);
}

TEST(StepLoop, RefusesOptionsThatCannotWork) {
  SimulatedRunner runner(simulated_model());
  const auto make = [&](const EngineOptions& given, Runner& with) {
    return StepLoop(given, with, *byte_tokenizer(), [] { return TimePoint(); });
  };
  EXPECT_THROW(make(engine_options(0, 8), runner), std::invalid_argument);
  EXPECT_THROW(make(engine_options(1, 0), runner), std::invalid_argument);
  RunnerInfo broken = simulated_model();
  broken.limits.max_context = 1;
  SimulatedRunner tiny(broken);
  EXPECT_THROW(make(engine_options(1, 8), tiny), std::invalid_argument);
}

// ---- progress, reads, times ----------------------------------------------------------------

TEST(StepLoop, ReportsPrefillProgress) {
  Bench bench(engine_options(4, 16));
  GenerationRequest request = make_request(40, 2);
  request.report_progress = true;
  const Outcome outcome = bench.finish(*bench.add(request));
  ASSERT_EQ(outcome.progress.size(), 3U);
  const std::int32_t done[] = {16, 32, 40};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(outcome.progress[i].total, 40);
    EXPECT_EQ(outcome.progress[i].done, done[i]);
  }
}

TEST(StepLoop, ProgressSaysHowLongTheRestTakes) {
  Bench bench(engine_options(4, 16));
  bench.runner.on_step = [&](const StepBatch&) { bench.now += seconds(4); };
  GenerationRequest request = make_request(40, 2);
  request.report_progress = true;
  const auto stream = bench.add(request);
  bench.now += seconds(100);  // waiting is not computing
  Outcome outcome;
  while (!bench.loop.idle()) {
    bench.step();
    outcome.take(*stream);
  }
  ASSERT_EQ(outcome.progress.size(), 3U);
  EXPECT_DOUBLE_EQ(outcome.progress[0].seconds_left, 24 * 4.0 / 16);
  EXPECT_DOUBLE_EQ(outcome.progress[1].seconds_left, 8 * 4.0 / 16);
  EXPECT_EQ(outcome.progress[2].seconds_left, 0);
}

TEST(StepLoop, UrgentRequestsGoFirstAndClientsShare) {
  Bench bench(engine_options(1, 16));
  const auto add = [&](std::int32_t priority, const char* client, std::uint64_t seed) {
    GenerationRequest request = make_request(8, 3, seed);
    request.priority = priority;
    request.client = client;
    return bench.add(request);
  };
  const auto running = add(0, "a", 0);
  bench.step();
  const auto second = add(0, "a", 1);
  const auto third = add(0, "a", 2);
  const auto other = add(0, "b", 3);
  const auto urgent = add(-1, "a", 4);
  std::vector<int> order;
  while (!bench.loop.idle()) {
    bench.step();
    int index = 0;
    for (const auto& stream : {running, second, third, other, urgent}) {
      Outcome outcome;
      outcome.take(*stream);
      if (outcome.ended()) order.push_back(index);
      ++index;
    }
  }
  // The urgent one takes the place, the interrupted one resumes, the fourth place goes by age, and
  // then the other client is before the second request of the one that had more.
  EXPECT_THAT(order, ElementsAre(4, 0, 1, 3, 2));
}

TEST(StepLoop, ProgressNeverGoesBackAfterPreemption) {
  Bench bench(engine_options(8, 16), simulated_model(16));
  std::vector<std::shared_ptr<Stream>> streams;
  for (std::uint64_t i = 0; i < 12; ++i) {
    GenerationRequest request = make_request(8 + i, 20, i);
    request.report_progress = true;
    streams.push_back(bench.add(request));
  }
  std::vector<Outcome> outcomes(streams.size());
  while (!bench.loop.idle()) {
    bench.step();
    for (std::size_t i = 0; i < streams.size(); ++i) outcomes[i].take(*streams[i]);
  }
  EXPECT_GT(bench.loop.stats().preemptions, 0);
  for (const Outcome& outcome : outcomes) {
    EXPECT_TRUE(outcome.in_order);
    for (std::size_t i = 1; i < outcome.progress.size(); ++i) {
      EXPECT_GT(outcome.progress[i].done, outcome.progress[i - 1].done);
    }
    EXPECT_EQ(outcome.progress.back().done, outcome.progress.back().total);
  }
}

TEST(StepLoop, CountsBlockReadsOfAllLayersAndHeads) {
  Bench bench;
  GenerationRequest request = make_request(32, 3);
  request.attention.prefill = AttentionPolicy::moba(8, 2);
  request.attention.full_attention_last_layers = 1;
  const Outcome outcome = bench.finish(*bench.add(request));
  // 32 queries in blocks of 8 see 1, 2, 3, 4 blocks. Three of four layers read at most 2.
  EXPECT_EQ(outcome.finish().prefill_reads.total, 4 * 2 * 8 * (1 + 2 + 3 + 4));
  EXPECT_EQ(outcome.finish().prefill_reads.read,
            3 * 2 * 8 * (1 + 2 + 2 + 2) + 1 * 2 * 8 * (1 + 2 + 3 + 4));
  // Two generated tokens went through the model (the third was only drawn), with full attention.
  EXPECT_EQ(outcome.finish().decode_reads.total, 4 * 2 * 2 * 5);
  EXPECT_EQ(outcome.finish().decode_reads.read, outcome.finish().decode_reads.total);
}

TEST(StepLoop, ReadsDoNotDependOnPreemption) {
  const GenerationRequest request = make_request(8, 20, 11);
  Bench alone;
  const Outcome expected = alone.finish(*alone.add(request));
  Bench crowded(engine_options(8, 16), simulated_model(16));
  for (std::uint64_t i = 0; i < 6; ++i) crowded.add(make_request(8, 20, i));
  const auto stream = crowded.add(request);
  const Outcome outcome = crowded.finish(*stream);
  EXPECT_GT(crowded.loop.stats().preemptions, 0);
  EXPECT_EQ(outcome.finish().prefill_reads.read, expected.finish().prefill_reads.read);
  EXPECT_EQ(outcome.finish().decode_reads.read, expected.finish().decode_reads.read);
  EXPECT_EQ(outcome.finish().decode_reads.total, expected.finish().decode_reads.total);
}

TEST(StepLoop, MeasuresFromArrival) {
  Bench bench(engine_options(1, 16));
  bench.runner.on_step = [&](const StepBatch&) { bench.now += seconds(1); };
  bench.add(make_request(16, 2));  // two steps
  const Outcome outcome = bench.finish(*bench.add(make_request(32, 3, 1)));
  EXPECT_EQ(outcome.finish().timing.queued, seconds(2));
  EXPECT_EQ(outcome.finish().timing.first_token, seconds(4));
  EXPECT_EQ(outcome.finish().timing.total, seconds(6));
  // One gap in the first answer, two in the second.
  const DurationCounts gaps = bench.loop.stats().token_gaps;
  EXPECT_EQ(gaps.counts[duration_bucket(1)], 3U);
  EXPECT_EQ(gaps.sum, 3);
}

TEST(StepLoop, CountsForMetrics) {
  Bench bench;
  for (std::uint64_t i = 0; i < 3; ++i) bench.add(make_request(10, 4, i));
  EXPECT_EQ(bench.loop.stats().waiting, 3);
  bench.step();
  EXPECT_EQ(bench.loop.stats().running, 3);
  EXPECT_EQ(bench.loop.stats().pages_used, 9);
  bench.run();
  const EngineStats stats = bench.loop.stats();
  EXPECT_EQ(stats.prompt_tokens, 30);
  EXPECT_EQ(stats.generated_tokens, 12);
  EXPECT_EQ(stats.requests_finished, 3);
  EXPECT_EQ(stats.pages_total, 64);
}

// ---- cancellation, deadlines, errors -------------------------------------------------------

// One request in each state: decoding, prefilling and queued.
struct ThreeStates {
  explicit ThreeStates(std::optional<TimePoint> deadline = {}) {
    bench.runner.scripts[0] = bytes(std::string(100, 'x'));
    const auto add = [&](GenerationRequest request) {
      request.deadline = deadline;
      return bench.add(std::move(request));
    };
    decoding = add(make_request(4, 50, 0));
    prefilling = add(make_request(150, 5, 1));
    queued = add(make_request(4, 5, 2));
    bench.step();
    bench.step();
    EXPECT_EQ(bench.loop.stats().running, 2);
    EXPECT_EQ(bench.loop.stats().waiting, 1);
  }
  Bench bench{engine_options(2, 16)};
  std::shared_ptr<Stream> decoding, prefilling, queued;
};

TEST(StepLoop, CancelsInEachStateAtTheNextStep) {
  for (const auto member :
       {&ThreeStates::decoding, &ThreeStates::prefilling, &ThreeStates::queued}) {
    ThreeStates states;
    Stream& stream = *(states.*member);
    stream.cancel();
    states.bench.step();
    Outcome outcome;
    outcome.take(stream);
    ASSERT_TRUE(outcome.ended());
    EXPECT_EQ(outcome.finish().reason, FinishReason::error);
    EXPECT_EQ(outcome.finish().status.code(), StatusCode::cancelled);
    EXPECT_EQ(outcome.finish().usage.completion_tokens,
              static_cast<std::int32_t>(outcome.deltas.size()));
    states.bench.run();
    EXPECT_EQ(states.bench.loop.stats().requests_finished, 3);
    outcome.take(stream);
    EXPECT_EQ(outcome.finishes.size(), 1U);
    stream.cancel();  // harmless
  }
}

TEST(StepLoop, DeadlineEndsEachState) {
  ThreeStates states(TimePoint(seconds(10)));
  states.bench.now = TimePoint(seconds(10));
  states.bench.step();
  EXPECT_TRUE(states.bench.loop.idle());
  const auto status_of = [](Stream& stream) {
    Outcome outcome;
    outcome.take(stream);
    EXPECT_EQ(outcome.finish().reason, FinishReason::error);
    EXPECT_EQ(outcome.finish().status.code(), StatusCode::deadline_exceeded);
    return outcome.finish().status.message();
  };
  EXPECT_THAT(status_of(*states.decoding), HasSubstr("after 2 generated tokens"));
  EXPECT_THAT(status_of(*states.prefilling), HasSubstr("of 150 prompt tokens"));
  EXPECT_THAT(status_of(*states.queued), HasSubstr("while it was queued"));
}

TEST(StepLoop, DeadlineNotYetReachedChangesNothing) {
  ThreeStates states(TimePoint(seconds(10)));
  states.bench.now = TimePoint(seconds(10)) - std::chrono::nanoseconds(1);
  states.bench.run();
  for (Stream* stream : {states.decoding.get(), states.prefilling.get(), states.queued.get()}) {
    Outcome outcome;
    outcome.take(*stream);
    EXPECT_EQ(outcome.finish().reason, FinishReason::length);
  }
}

TEST(StepLoop, CancelledRequestStillGivesItsHeldBackText) {
  Bench bench;
  bench.runner.scripts[1] = bytes("ab##cd");
  GenerationRequest stopping = make_request(5, 50, 1);
  stopping.stop = {"###"};
  const auto stream = bench.add(std::move(stopping));
  for (int i = 0; i < 4; ++i) bench.step();
  stream->cancel();
  bench.run();
  Outcome outcome;
  outcome.take(*stream);
  EXPECT_EQ(outcome.text(), "ab##");
  EXPECT_EQ(outcome.finish().status.code(), StatusCode::cancelled);
}

TEST(StepLoop, CancellingOthersDoesNotChangeTokens) {
  Bench bench(engine_options(6, 16), simulated_model(24));
  std::vector<std::shared_ptr<Stream>> others;
  for (std::uint64_t i = 1; i < 10; ++i) others.push_back(bench.add(make_request(12, 30, i)));
  const GenerationRequest request = make_request(20, 25, 99);
  const auto stream = bench.add(request);
  Outcome outcome;
  for (std::size_t i = 0; !bench.loop.idle(); ++i) {
    if (i % 3 == 0 && i / 3 < others.size()) others[i / 3]->cancel();
    bench.step();
    outcome.take(*stream);
  }
  EXPECT_EQ(outcome.tokens(), expected_tokens(request, bench.runner.info(), 25));
}

TEST(StepLoop, RejectsResultsThatAreNotTokens) {
  for (const int kind : {0, 1, 2}) {
    Bench bench;
    bench.runner.on_result = [&](std::vector<SampledToken>& result) {
      if (kind == 0) result.clear();
      if (kind == 1) result.at(0).token = -1;
      if (kind == 2) result.at(0).token = 256;
    };
    const auto stream = bench.add(make_request(4, 5));
    EXPECT_THROW(bench.loop.step(), std::runtime_error);
    bench.loop.end_all({StatusCode::internal, "broken"});
    EXPECT_TRUE(bench.loop.idle());
    EXPECT_EQ(bench.loop.take_ended().size(), 1U);
    EXPECT_EQ(bench.loop.stats().pages_used, 0);
  }
}

}  // namespace
}  // namespace mobius
