// Log-probabilities of prompts, asked of the whole step loop.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "tests/unit/engine/support.h"

namespace mobius {
namespace {

std::vector<float> logprobs(const Outcome& outcome) {
  std::vector<float> out;
  for (std::size_t i = 1; i < outcome.prompt.size(); ++i) out.push_back(outcome.prompt[i].logprob);
  return out;
}

std::vector<std::int32_t> scored_tokens(const Outcome& outcome) {
  std::vector<std::int32_t> out;
  for (const SampledToken& token : outcome.prompt) out.push_back(token.token);
  return out;
}

GenerationRequest scored_request(std::size_t prompt_tokens, std::uint64_t seed = 0) {
  GenerationRequest request = make_request(prompt_tokens, 3, seed);
  request.prompt_logprobs = 2;
  return request;
}

TEST(PromptScores, ScoresAPrompt) {
  for (const std::size_t length : {1U, 2U, 16U, 17U, 60U}) {
    Bench bench;
    const GenerationRequest request = scored_request(length);
    const Outcome outcome = bench.finish(*bench.add(request));
    EXPECT_EQ(scored_tokens(outcome), request.prompt);
    EXPECT_EQ(logprobs(outcome), expected_prompt_logprobs(request));
    EXPECT_TRUE(outcome.prompt[0].top.empty());
    if (length > 1) {
      EXPECT_EQ(outcome.prompt[1].top.size(), 2U);
    }
    EXPECT_EQ(outcome.tokens(), expected_tokens(request, bench.runner.info(), 3));
  }
}

TEST(PromptScores, NothingIsGeneratedWhereNoAnswerIsWanted) {
  for (const bool scored : {true, false}) {
    Bench bench;
    GenerationRequest request = make_request(40, 3);
    request.max_tokens = 0;
    request.report_progress = true;
    if (scored) request.prompt_logprobs = 2;
    const Outcome outcome = bench.finish(*bench.add(request));
    EXPECT_EQ(scored_tokens(outcome).size(), scored ? 40U : 0U);
    if (scored) {
      EXPECT_EQ(logprobs(outcome), expected_prompt_logprobs(request));
    }
    EXPECT_TRUE(outcome.deltas.empty());
    EXPECT_EQ(outcome.text(), "");
    EXPECT_EQ(outcome.finish().reason, FinishReason::length);
    EXPECT_EQ(outcome.finish().usage.completion_tokens, 0);
    EXPECT_EQ(outcome.finish().usage.prompt_tokens, 40);
    EXPECT_EQ(outcome.progress.back().done, 40);
    EXPECT_EQ(bench.loop.stats().generated_tokens, 0);
    if (scored) continue;
    // What was computed is there for the next one.
    EXPECT_GT(bench.finish(*bench.add(make_request(40, 3))).finish().usage.cached_tokens, 0);
  }
}

TEST(PromptScores, ScoresNothingUnasked) {
  Bench bench;
  EXPECT_TRUE(bench.finish(*bench.add(make_request(20, 3))).prompt.empty());
}

TEST(PromptScores, ScoredPromptsAreComputedWhole) {
  Bench bench;
  const GenerationRequest request = scored_request(30);
  GenerationRequest plain = request;
  plain.prompt_logprobs = -1;
  bench.finish(*bench.add(plain));
  EXPECT_GT(bench.finish(*bench.add(plain)).finish().usage.cached_tokens, 0);
  const Outcome outcome = bench.finish(*bench.add(request));
  EXPECT_EQ(outcome.finish().usage.cached_tokens, 0);
  EXPECT_EQ(logprobs(outcome), expected_prompt_logprobs(request));
  EXPECT_EQ(outcome.tokens(), expected_tokens(request, bench.runner.info(), 3));
}

TEST(PromptScores, ScoresTheSameAloneInABatchAndPreempted) {
  std::int64_t preemptions = 0;
  for (std::uint32_t seed = 0; seed < 40 && !HasFailure(); ++seed) {
    std::mt19937 random(seed);
    const auto upto = [&](std::uint32_t most) {
      return 1 + static_cast<std::int32_t>(random() % most);
    };
    const std::int32_t max_running = upto(16);  // at 16 there are no logits to spare
    Bench bench(engine_options(max_running, max_running + upto(40)),
                simulated_model(12 + upto(20)));
    std::vector<GenerationRequest> requests;
    std::vector<std::shared_ptr<Stream>> streams;
    while (requests.size() < 20) {
      GenerationRequest request = make_request(static_cast<std::size_t>(upto(40)), upto(20),
                                               random() % 8);  // some have the same prompt
      if (random() % 2 == 0) request.prompt_logprobs = 0;
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
      EXPECT_EQ(outcome.tokens(),
                expected_tokens(requests[i], bench.runner.info(), outcome.deltas.size()));
      if (requests[i].prompt_logprobs < 0) {
        EXPECT_TRUE(outcome.prompt.empty());
        continue;
      }
      EXPECT_EQ(scored_tokens(outcome), requests[i].prompt);
      EXPECT_EQ(logprobs(outcome), expected_prompt_logprobs(requests[i]));
    }
  }
  EXPECT_GT(preemptions, 20) << "the workloads are too easy";
}

}  // namespace
}  // namespace mobius
