// Prefix reuse through the step loop: tokens are those of a request that runs alone, whatever was
// found in the cache. The simulated model computes them from what the pages hold.

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/unit/engine/support.h"

namespace mobius {
namespace {

EngineOptions options(bool prefix_cache, std::int32_t max_running = 8,
                      std::int32_t step_tokens = 32) {
  EngineOptions out;
  out.max_running = max_running;
  out.step_tokens = step_tokens;
  out.prefix_cache = prefix_cache;
  return out;
}

void expect_right_tokens(const Outcome& outcome, const GenerationRequest& request,
                         const RunnerInfo& model) {
  EXPECT_EQ(outcome.tokens(),
            expected_tokens(request, model, static_cast<std::size_t>(*request.max_tokens)));
}

TEST(Reuse, FollowUpComputesOnlyWhatIsNew) {
  Bench bench(options(true));
  GenerationRequest first = make_request(30, 10, 1);
  first.attention.decode = first.attention.prefill;
  const Outcome answer = bench.finish(*bench.add(first));
  EXPECT_EQ(answer.finish().usage.cached_tokens, 0);
  EXPECT_EQ(bench.loop.stats().pages_cached, 9) << "39 tokens went through the model";

  // The conversation so far and a new question.
  GenerationRequest second = first;
  for (const std::int32_t token : answer.tokens()) second.prompt.push_back(token);
  for (const std::int32_t token : make_prompt(7, 9)) second.prompt.push_back(token);
  second.report_progress = true;
  const std::int64_t computed = bench.loop.stats().prompt_tokens;
  const Outcome next = bench.finish(*bench.add(second));
  expect_right_tokens(next, second, bench.runner.info());
  EXPECT_EQ(next.finish().usage.cached_tokens, 36);
  EXPECT_EQ(next.finish().usage.prompt_tokens, 47);
  EXPECT_EQ(bench.loop.stats().prompt_tokens - computed, 11);
  EXPECT_EQ(bench.loop.stats().cached_tokens, 36);
  ASSERT_EQ(next.progress.size(), 1U);
  EXPECT_EQ(next.progress[0].cached, 36);
  EXPECT_EQ(next.progress[0].done, 47);
  EXPECT_EQ(next.progress[0].total, 47);
}

TEST(Reuse, AnswersUnderOtherAttentionAreComputedAgain) {
  Bench bench(options(true));
  const GenerationRequest first = make_request(30, 10, 1);  // MoBA prefill, full decode
  const Outcome answer = bench.finish(*bench.add(first));
  GenerationRequest second = first;
  for (const std::int32_t token : answer.tokens()) second.prompt.push_back(token);
  const Outcome next = bench.finish(*bench.add(second));
  expect_right_tokens(next, second, bench.runner.info());
  EXPECT_EQ(next.finish().usage.cached_tokens, 28);
}

TEST(Reuse, NothingIsFoundUnderOtherSettings) {
  Bench bench(options(true));
  GenerationRequest request = make_request(30, 5, 1);
  bench.finish(*bench.add(request));
  request.attention.prefill = AttentionPolicy::full();
  Outcome outcome = bench.finish(*bench.add(request));
  EXPECT_EQ(outcome.finish().usage.cached_tokens, 0);
  expect_right_tokens(outcome, request, bench.runner.info());
  request.attention.prefill = AttentionPolicy::moba(8, 2);
  request.attention.full_attention_last_layers = 2;
  outcome = bench.finish(*bench.add(request));
  EXPECT_EQ(outcome.finish().usage.cached_tokens, 0);
  expect_right_tokens(outcome, request, bench.runner.info());
}

TEST(Reuse, CanBeSwitchedOff) {
  Bench bench(options(false));
  const GenerationRequest request = make_request(30, 5, 1);
  bench.finish(*bench.add(request));
  const Outcome again = bench.finish(*bench.add(request));
  EXPECT_EQ(again.finish().usage.cached_tokens, 0);
  EXPECT_EQ(bench.loop.stats().pages_cached, 0);
  EXPECT_EQ(bench.loop.stats().prompt_tokens, 60);
}

TEST(Reuse, BlockReadsLeaveOutWhatWasFound) {
  Bench bench(options(true));
  const GenerationRequest request = make_request(32, 3);
  const Finish first = bench.finish(*bench.add(request)).finish();
  const Finish again = bench.finish(*bench.add(request)).finish();
  EXPECT_EQ(again.usage.cached_tokens, 28);
  // Queries 28 to 31 see 4 blocks in each of 4 layers and 2 heads.
  EXPECT_EQ(again.prefill_reads.total, 4 * 2 * 4 * 4);
  EXPECT_LT(again.prefill_reads.read, first.prefill_reads.read);
  EXPECT_EQ(again.decode_reads.read, first.decode_reads.read);
}

TEST(Reuse, SimultaneousPromptsAreComputedOnce) {
  Bench bench(options(true, 8, 32));
  std::vector<GenerationRequest> requests;
  std::vector<std::shared_ptr<Stream>> streams;
  for (std::uint64_t i = 0; i < 6; ++i) {
    GenerationRequest request = make_request(0, 4, i);
    request.prompt = make_prompt(120, 77);
    for (const std::int32_t token : make_prompt(3, i)) request.prompt.push_back(token);
    requests.push_back(request);
    streams.push_back(bench.add(request));
  }
  bench.run();
  std::int64_t cached = 0;
  for (std::size_t i = 0; i < streams.size(); ++i) {
    Outcome outcome;
    outcome.take(*streams[i]);
    expect_right_tokens(outcome, requests[i], bench.runner.info());
    cached += outcome.finish().usage.cached_tokens;
  }
  EXPECT_EQ(cached, 5 * 120);
  EXPECT_EQ(bench.loop.stats().prompt_tokens, 120 + 6 * 3);
}

TEST(Reuse, CancelledWorkIsNotLost) {
  Bench bench(options(true, 8, 16));
  const GenerationRequest request = make_request(60, 4, 3);
  const auto stream = bench.add(request);
  bench.step();
  bench.step();
  stream->cancel();
  bench.step();
  EXPECT_TRUE(bench.loop.idle());
  const Outcome outcome = bench.finish(*bench.add(request));
  EXPECT_EQ(outcome.finish().usage.cached_tokens, 32);
  expect_right_tokens(outcome, request, bench.runner.info());
}

TEST(Reuse, WhoeverComputesACommonBeginningMayLeave) {
  Bench bench(options(true, 8, 16));
  GenerationRequest request = make_request(60, 4, 3);
  const auto first = bench.add(request);
  request.sampling.seed = 4;
  const auto second = bench.add(request);
  bench.step();
  bench.step();
  first->cancel();
  const Outcome outcome = bench.finish(*second);
  expect_right_tokens(outcome, request, bench.runner.info());
  EXPECT_EQ(outcome.finish().usage.cached_tokens, 32);
}

// Conversations with common beginnings in a pool that is too small, with preemptions, cancellations
// and evictions, each under one of several settings: with and without the cache the tokens are
// those of a request that runs alone.
TEST(Reuse, RandomConversationsGetTheirTokens) {
  std::int64_t cached = 0;
  std::int64_t preemptions = 0;
  for (std::uint32_t seed = 0; seed < 60 && !HasFailure(); ++seed) {
    std::mt19937 random(seed);
    const auto upto = [&](std::uint32_t most) {
      return 1 + static_cast<std::int32_t>(random() % most);
    };
    const std::int32_t max_running = upto(8);
    Bench bench(options(true, max_running, max_running + upto(40)), simulated_model(19 + upto(12)));
    std::vector<GenerationRequest> requests;
    std::vector<std::shared_ptr<Stream>> streams;
    std::vector<bool> cancelled;
    while (requests.size() < 30) {
      GenerationRequest request = make_request(0, upto(20), random());
      request.prompt = make_prompt(static_cast<std::size_t>(upto(40)), random() % 3);
      for (const std::int32_t token : make_prompt(random() % 12, random() % 4)) {
        request.prompt.push_back(token);
      }
      if (random() % 2 == 0) request.attention.decode = request.attention.prefill;
      if (random() % 4 == 0) request.attention.prefill = AttentionPolicy::full();
      requests.push_back(request);
      streams.push_back(bench.add(std::move(request)));
      cancelled.push_back(false);
      for (auto i = random() % 6; i > 0; --i) bench.step();
      if (random() % 8 == 0) {
        const std::size_t one = random() % streams.size();
        streams[one]->cancel();
        cancelled[one] = true;
      }
    }
    bench.run();
    cached += bench.loop.stats().cached_tokens;
    preemptions += bench.loop.stats().preemptions;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      Outcome outcome;
      outcome.take(*streams[i]);
      ASSERT_TRUE(outcome.ended());
      if (cancelled[i]) continue;
      expect_right_tokens(outcome, requests[i], bench.runner.info());
      EXPECT_LT(outcome.finish().usage.cached_tokens, outcome.finish().usage.prompt_tokens);
    }
  }
  EXPECT_GT(cached, 5000) << "too little is reused for a test";
  EXPECT_GT(preemptions, 100) << "the workloads are too easy";
}

}  // namespace
}  // namespace mobius
