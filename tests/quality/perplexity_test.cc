#include "tests/quality/perplexity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <numeric>
#include <stdexcept>

#include "models/generate/checkpoint_spec.h"
#include "models/generate/write_checkpoint.h"
#include "tests/unit/models/scratch.h"

namespace mobius {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::Pointwise;
using testing::ThrowsMessage;

constexpr std::int32_t kPage = 16;

std::vector<std::int32_t> some_tokens(std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  for (std::size_t i = 0; i < count; ++i) tokens[i] = static_cast<std::int32_t>(i * 37 % 251);
  return tokens;
}

class TokenLosses : public testing::Test {
 protected:
  TokenLosses() { write_checkpoint(shape_preset("tiny"), {.seed = 5}, folder_.path()); }

  std::unique_ptr<LlamaRunner> runner(std::int32_t logit_rows) const {
    ModelOptions options;
    options.folder = folder_.path();
    options.page_tokens = kPage;
    options.max_context = 256;
    options.threads = 2;
    options.step_tokens = 200;
    options.max_sequences = logit_rows;
    return load_llama(options);
  }

  static std::vector<double> losses(LlamaRunner& runner, std::span<const std::int32_t> tokens,
                                    const std::string& attention) {
    return token_losses(runner, tokens, parse_loss_attention(attention, 0));
  }

 private:
  ScratchFolder folder_;
};

TEST_F(TokenLosses, AreThoseOfTheSampledTokens) {
  // The engine's way to a log-probability, one step for each token, is the judge.
  const auto runner = this->runner(7);
  const std::vector<std::int32_t> tokens = some_tokens(40);
  const std::vector<double> found = losses(*runner, tokens, "full");
  ASSERT_EQ(found.size(), tokens.size() - 1);
  std::vector<PageId> pages(3);
  std::iota(pages.begin(), pages.end(), 0);
  SamplingParams params;
  params.temperature = 0;
  params.top_logprobs = runner->info().vocab_size;
  SampleRow sample;
  sample.params = &params;
  const std::int32_t row = 0;
  for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
    SequenceSlice slice;
    slice.num_rows = 1;
    slice.first_position = static_cast<std::int32_t>(i);
    slice.pages = pages;
    runner->submit({{std::span(tokens).subspan(i, 1), std::span(&slice, 1), std::span(&row, 1)},
                    std::span(&sample, 1)});
    const SampledToken sampled = runner->wait()[0];
    const auto next =
        std::find_if(sampled.top.begin(), sampled.top.end(),
                     [&](const TokenLogprob& each) { return each.token == tokens[i + 1]; });
    ASSERT_NE(next, sampled.top.end());
    EXPECT_NEAR(found[i], -static_cast<double>(next->logprob), 1e-4);
  }
}

TEST_F(TokenLosses, DoNotDependOnTheSteps) {
  const std::vector<std::int32_t> tokens = some_tokens(150);
  const auto narrow = runner(7);
  const auto wide = runner(200);
  for (const std::string attention : {"full", "moba:16/2"}) {
    EXPECT_EQ(losses(*narrow, tokens, attention), losses(*wide, tokens, attention)) << attention;
  }
}

TEST_F(TokenLosses, FollowTheAttention) {
  const auto runner = this->runner(64);
  const std::vector<std::int32_t> tokens = some_tokens(150);
  const std::vector<double> full = losses(*runner, tokens, "full");
  // Every block fits: the same attention, whatever order the sums run in.
  EXPECT_THAT(losses(*runner, tokens, "moba:16/10"), Pointwise(DoubleNear(1e-2), full));
  const std::vector<double> sparse = losses(*runner, tokens, "moba:16/2");
  EXPECT_NE(sparse, full);
  // The last layers full, all of them: full attention again.
  const std::int32_t layers = runner->info().num_layers;
  EXPECT_EQ(token_losses(*runner, tokens, parse_loss_attention("moba:16/2", layers)), full);
  // Nothing of an earlier text is left in the cache.
  EXPECT_EQ(losses(*runner, tokens, "full"), full);
}

TEST_F(TokenLosses, RefuseWhatCannotBe) {
  const auto runner = this->runner(64);
  const std::vector<std::int32_t> tokens = some_tokens(257);
  EXPECT_THROW(losses(*runner, std::span(tokens).first(1), "full"), std::invalid_argument);
  EXPECT_THROW(losses(*runner, tokens, "full"), std::invalid_argument);
  EXPECT_EQ(losses(*runner, std::span(tokens).first(256), "full").size(), 255U);
  EXPECT_THROW(losses(*runner, std::span(tokens).first(9), "moba:24/2"), std::invalid_argument);
  const std::int32_t layers = runner->info().num_layers;
  EXPECT_THROW(
      token_losses(*runner, std::span(tokens).first(9), parse_loss_attention("full", layers + 1)),
      std::invalid_argument);
}

TEST(LossAttention, ReadsItsName) {
  EXPECT_EQ(parse_loss_attention("full", 0).policy, AttentionPolicy::full());
  const LossAttention moba = parse_loss_attention("moba:512/8", 2);
  EXPECT_EQ(moba.policy, AttentionPolicy::moba(512, 8));
  EXPECT_EQ(moba.full_attention_last_layers, 2);
  EXPECT_EQ(moba.name(), "moba:512/8");
  for (const std::string wrong : {"", "ful", "moba", "moba:", "moba:512", "moba:512/", "moba:0/8",
                                  "moba:512/0", "moba:512/8x", "moba:-1/8", "moba:99999999999/8"}) {
    EXPECT_THAT([&] { parse_loss_attention(wrong, 0); },
                ThrowsMessage<std::invalid_argument>(testing::HasSubstr("\"" + wrong + "\"")));
  }
}

TEST(LossSummary, AveragesAndCompares) {
  const std::vector<std::vector<double>> reference = {{1.0, 3.0}, {2.0, 2.0}};
  const std::vector<std::vector<double>> losses = {{1.2, 3.2}, {2.4, 2.0}};
  const LossSummary summary = summarize(losses, reference);
  EXPECT_EQ(summary.tokens, 4);
  EXPECT_DOUBLE_EQ(summary.mean, 2.2);
  EXPECT_DOUBLE_EQ(summary.perplexity, std::exp(2.2));
  EXPECT_NEAR(summary.relative, 0.1, 1e-12);
  EXPECT_NEAR(summary.relative_error, 0, 1e-12);  // both windows are worse by 0.2
  const std::vector<std::vector<double>> uneven = {{1.0, 3.0}, {2.4, 2.4}};
  EXPECT_NEAR(summarize(uneven, reference).relative_error, 0.1, 1e-12);  // 0 and 0.4
  EXPECT_EQ(summarize(std::span(losses).first(1), reference).relative_error, 0);
}

TEST(LossSummary, DividesPositions) {
  std::vector<double> window(2500);
  // The token at position p is predicted by the loss at p - 1.
  std::iota(window.begin(), window.end(), 1.0);
  const std::vector<std::vector<double>> losses = {window};
  std::vector<std::int32_t> firsts, counts;
  std::vector<double> means;
  for (const LossRange& range : summarize(losses, losses).ranges) {
    firsts.push_back(range.first);
    counts.push_back(range.count);
    means.push_back(range.mean);
  }
  EXPECT_THAT(firsts, ElementsAre(1, 1024, 2048));
  EXPECT_THAT(counts, ElementsAre(1023, 1024, 453));
  EXPECT_THAT(means, ElementsAre(512, 1535.5, 2274));
}

}  // namespace
}  // namespace mobius
