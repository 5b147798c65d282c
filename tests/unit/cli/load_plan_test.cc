#include "server/cli/load_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>

#include "server/cli/prompt_text.h"
#include "tests/scratch_folder.h"

namespace mobius {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::int64_t words(const std::string& text) {
  return text.empty() ? 0 : std::ranges::count(text, ' ') + 1;
}

TEST(LengthRange, OneNumberOrTwo) {
  EXPECT_EQ(parse_length_range("--x", "7").most, 7);
  EXPECT_EQ(parse_length_range("--x", "7:9").least, 7);
  EXPECT_EQ(parse_length_range("--x", "7:9").most, 9);
  for (const char* text : {"", "0", "-1", "x", "7:", ":7", "9:7", "7:9:11", "99999999999"}) {
    EXPECT_THROW(parse_length_range("--x", text), std::runtime_error) << text;
  }
}

TEST(Plan, LengthsLieInTheirRangesAndFollowFromTheSeed) {
  const auto plan = plan_requests(500, {10, 20}, {1, 3}, 0, 7);
  ASSERT_EQ(plan.size(), 500U);
  for (const PlannedRequest& request : plan) {
    EXPECT_TRUE(request.prompt_tokens >= 10 && request.prompt_tokens <= 20);
    EXPECT_TRUE(request.output_tokens >= 1 && request.output_tokens <= 3);
    EXPECT_EQ(request.at, 0);
  }
  const auto is = [](std::int64_t length) {
    return [length](const PlannedRequest& request) { return request.prompt_tokens == length; };
  };
  EXPECT_TRUE(std::ranges::any_of(plan, is(10)) && std::ranges::any_of(plan, is(20)));
  EXPECT_EQ(plan_requests(500, {10, 20}, {1, 3}, 0, 7)[499].blocks, plan[499].blocks);
  EXPECT_NE(plan_requests(500, {10, 20}, {1, 3}, 0, 8)[499].blocks, plan[499].blocks);
}

TEST(Plan, ArrivalsAreAPoissonProcess) {
  constexpr std::size_t kCount = 20000;
  const auto plan = plan_requests(kCount, {1, 1}, {1, 1}, 50, 3);
  EXPECT_EQ(plan.front().at, 0);
  double longer = 0;
  for (std::size_t i = 1; i < kCount; ++i) {
    const double gap = plan[i].at - plan[i - 1].at;
    ASSERT_GE(gap, 0);
    if (gap > 1.0 / 50) ++longer;
  }
  // The mean gap is 1/rate, and a share of 1/e of all is longer than it.
  EXPECT_NEAR(plan.back().at / (kCount - 1), 1.0 / 50, 0.03 / 50);
  EXPECT_NEAR(longer / (kCount - 1), 0.3679, 0.015);
}

struct TraceFile {
  ScratchFolder folder;
  std::string path;
  explicit TraceFile(std::string_view text) : path(folder.write("trace.jsonl", text).string()) {}
};

TEST(Trace, IsReadScaledAndCut) {
  const TraceFile file(
      "{\"timestamp\": 2000, \"input_length\": 1000, \"output_length\": 50, \"hash_ids\": [1, 2]}\n"
      "\n"
      "{\"timestamp\": 4000, \"input_length\": 512, \"output_length\": 10, \"hash_ids\": [1]}\n"
      "{\"timestamp\": 5000, \"input_length\": 9000, \"output_length\": 1, \"hash_ids\": "
      "[3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]}\n");
  const auto plan = read_trace_plan(file.path, {});
  ASSERT_EQ(plan.size(), 3U);
  EXPECT_EQ(plan[0].at, 0);
  EXPECT_EQ(plan[1].at, 2);
  EXPECT_EQ(plan[0].prompt_tokens, 1000);
  EXPECT_EQ(plan[0].output_tokens, 50);
  EXPECT_EQ(plan[0].block_tokens, 512);

  TraceOptions options;
  options.speed = 4;
  options.length_scale = 0.25;
  options.skip_longer = 1000;
  const auto fast = read_trace_plan(file.path, options);
  ASSERT_EQ(fast.size(), 2U);
  EXPECT_EQ(fast[1].at, 0.5);
  EXPECT_EQ(fast[0].prompt_tokens, 250);
  EXPECT_EQ(fast[0].block_tokens, 128);
  options.most = 1;
  EXPECT_EQ(read_trace_plan(file.path, options).size(), 1U);
}

TEST(Trace, RefusalsNameFileAndLine) {
  const auto error = [](const std::string& text) -> std::string {
    const TraceFile file(text);
    try {
      read_trace_plan(file.path, {});
    } catch (const std::runtime_error& refused) {
      return refused.what();
    }
    return "";
  };
  const std::string good =
      "{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [1]}\n";
  EXPECT_EQ(error(good), "");
  EXPECT_THAT(error(good + "nonsense\n"), HasSubstr("line 2: "));
  EXPECT_THAT(error("{\"timestamp\": 0}\n"), HasSubstr("input_length"));
  EXPECT_THAT(
      error("{\"timestamp\": -1, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [1]}\n"),
      HasSubstr("timestamp"));
  EXPECT_THAT(
      error("{\"timestamp\": 0, \"input_length\": 600, \"output_length\": 1, \"hash_ids\": [1]}\n"),
      HasSubstr("too few hash_ids"));
  EXPECT_THAT(
      error("{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": \"1\"}\n"),
      HasSubstr("hash_ids"));
  EXPECT_THAT(error(""), HasSubstr("no request"));
  EXPECT_THROW(read_trace_plan("/nonexistent/trace", {}), std::runtime_error);
}

TEST(PromptText, HasTheTokensThatWereAskedFor) {
  // A server that makes 1.5 tokens of a word and adds 30: 36 tokens of 4 words, 228 of 132.
  const TokenRate rate = TokenRate::of(4, 36, 132, 228);
  EXPECT_DOUBLE_EQ(rate.tokens_per_word, 1.5);
  EXPECT_DOUBLE_EQ(rate.overhead, 30);
  PlannedRequest request;
  request.prompt_tokens = 330;
  request.blocks = {5};
  request.block_tokens = 330;
  EXPECT_EQ(words(prompt_text(request, rate)), 200);
  request.prompt_tokens = 1;
  EXPECT_EQ(words(prompt_text(request, rate)), 1);
  // Counts that make no sense.
  EXPECT_EQ(TokenRate::of(4, 0, 132, 0).tokens_per_word, 1);
  EXPECT_EQ(TokenRate::of(4, 10, 132, 10).tokens_per_word, 1);
}

TEST(PromptText, EqualBlocksAreEqualTexts) {
  PlannedRequest one;
  one.prompt_tokens = 1000;
  one.blocks = {1, 2};
  one.block_tokens = 512;
  PlannedRequest other = one;
  other.blocks = {1, 3};
  const std::string a = prompt_text(one, {});
  const std::string b = prompt_text(other, {});
  EXPECT_EQ(words(a), 1000);
  const std::string common = filler_words(1, 512);
  EXPECT_THAT(a, StartsWith(common));
  EXPECT_THAT(b, StartsWith(common));
  EXPECT_NE(a, b);
  EXPECT_EQ(a, prompt_text(one, {}));
}

}  // namespace
}  // namespace mobius
