#include "kernels/cpu/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <stdexcept>

#include "kernels/oracle/sampling.h"
#include "kernels/philox.h"
#include "kernels/sampling.h"
#include "tests/kernels/isas.h"

namespace mobius {
namespace {

using testing::ElementsAre;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<float> random_logits(std::size_t vocab, float scale, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> logits(vocab);
  for (float& logit : logits) logit = scale * normal(random);
  return logits;
}

/// Upper bound that a chi-square statistic passes about once in 10^5 runs (Wilson and Hilferty).
double chi_square_bound(double degrees) {
  const double a = 2.0 / (9.0 * degrees);
  return degrees * std::pow(1.0 - a + 4.3 * std::sqrt(a), 3.0);
}

TEST(Philox, MatchesThePublishedVectors) {
  // From the Random123 distribution, tests/kat_vectors, philox4x32 with 10 rounds.
  EXPECT_THAT(philox4x32_10({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(
      philox4x32_10({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
      ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(
      philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(UniformDraw, TakesTheTopBitsOfTheFirstWord) {
  EXPECT_EQ(uniform_draw(0, 0), static_cast<float>(0x6627e8) / 0x1p24F);
  EXPECT_NE(uniform_draw(0, 1), uniform_draw(0, 0));
  EXPECT_NE(uniform_draw(std::uint64_t{1} << 32, 0), uniform_draw(0, 0));
  EXPECT_NE(uniform_draw(0, std::uint64_t{1} << 32), uniform_draw(0, 0));
}

TEST(UniformDraw, IsUniformInIndexAndSeed) {
  for (const bool by_seed : {false, true}) {
    std::vector<int> counts(64);
    constexpr int kDraws = 64000;
    for (std::uint64_t i = 0; i < kDraws; ++i) {
      const float draw = by_seed ? uniform_draw(i, 3) : uniform_draw(42, i);
      ASSERT_GE(draw, 0.0F);
      ASSERT_LT(draw, 1.0F);
      ++counts[static_cast<std::size_t>(draw * 64)];
    }
    double statistic = 0;
    for (const int count : counts) statistic += std::pow(count - 1000, 2) / 1000.0;
    EXPECT_LT(statistic, chi_square_bound(63));
  }
}

class SamplingIsa : public testing::TestWithParam<Isa> {
 protected:
  SampledToken sample(std::vector<float> logits, const SampleRow& row) {
    RowSampler::check(row, static_cast<std::int64_t>(logits.size()));
    return sampler_.sample(logits, row);
  }
  std::int32_t token(std::vector<float> logits, const SamplingParams& params) {
    SampleRow row;
    row.params = &params;
    return sample(std::move(logits), row).token;
  }
  RowSampler sampler_{GetParam()};
};

TEST_P(SamplingIsa, DrawsTheOraclesToken) {
  std::mt19937 random(1);
  const auto pick = [&](auto... values) {
    const double options[] = {static_cast<double>(values)...};
    return options[random() % sizeof...(values)];
  };
  int boundary_cases = 0;
  constexpr int kRounds = 1500;
  for (int round = 0; round < kRounds; ++round) {
    const auto vocab = static_cast<std::size_t>(pick(1, 2, 31, 33, 100, 1000, 3000));
    const std::vector<float> logits =
        random_logits(vocab, static_cast<float>(pick(0.0, 0.5, 3.0, 10.0)), random);
    SamplingParams params;
    params.seed = random();
    params.temperature = static_cast<float>(pick(0.0, 0.2, 1.0, 1.0, 2.0));
    params.top_k = static_cast<std::int32_t>(pick(0, 0, 1, 5, 200, 5000));
    params.top_p = static_cast<float>(pick(1.0, 1.0, 0.95, 0.5, 0.01));
    params.min_p = static_cast<float>(pick(0.0, 0.0, 0.05, 0.5, 1.0));
    params.repetition_penalty = static_cast<float>(pick(1.0, 1.0, 1.3, 0.8));
    params.presence_penalty = static_cast<float>(pick(0.0, 0.5, -1.0));
    params.frequency_penalty = static_cast<float>(pick(0.0, 0.0, 0.7));
    const auto random_token = [&] { return static_cast<std::int32_t>(random() % vocab); };
    for (int i = 0; i < static_cast<int>(pick(0, 0, 3)); ++i) {
      params.logit_bias.emplace_back(random_token(), static_cast<float>(pick(-100, 2, 5)));
    }
    std::vector<std::int32_t> prompt(static_cast<std::size_t>(pick(0, 10)));
    std::vector<std::int32_t> generated(static_cast<std::size_t>(pick(0, 1, 20)));
    for (std::int32_t& id : prompt) id = random_token();
    for (std::int32_t& id : generated) id = random_token();
    std::vector<std::uint32_t> allowed;
    if (round % 3 == 0) {
      allowed.resize((vocab + 31) / 32);
      for (std::uint32_t& word : allowed) word = static_cast<std::uint32_t>(random());
      const auto always = static_cast<std::size_t>(random_token());
      allowed[always / 32] |= 1U << (always % 32);
    }
    SampleRow row;
    row.params = &params;
    row.prompt = prompt;
    row.generated = generated;
    row.allowed = allowed;

    const auto candidates = oracle_distribution(logits, row);
    const double uniform = double{uniform_draw(params.seed, generated.size())};
    const std::int32_t drawn = sample(logits, row).token;
    if (drawn == oracle_draw(candidates, uniform)) continue;
    // fp32 penalties and temperatures move boundaries a little; nothing else may explain it.
    ++boundary_cases;
    const auto found = std::find_if(candidates.begin(), candidates.end(),
                                    [&](const OracleCandidate& c) { return c.token == drawn; });
    double before = 0;
    for (auto it = candidates.begin(); it != found && it != candidates.end(); ++it) {
      before += it->probability;
    }
    const double after = before + (found == candidates.end() ? 0.0 : found->probability);
    // A filter may keep one token more or less where the sum meets its bound exactly.
    const double slack = 1e-3 + candidates.back().probability;
    EXPECT_TRUE(uniform >= before - slack && uniform < after + slack)
        << "round " << round << ": drew " << drawn << " for " << uniform << " of [" << before
        << ", " << after << ")";
  }
  EXPECT_LT(boundary_cases, kRounds / 100);
}

TEST_P(SamplingIsa, DrawsFromTheWholeVocabularyInProportion) {
  // 100 tokens of known probability, drawn with consecutive indices; no filter.
  std::vector<float> logits(100);
  for (std::size_t i = 0; i < logits.size(); ++i)
    logits[i] = std::log(1.0F + static_cast<float>(i % 10));
  SamplingParams params;
  params.seed = 99;
  SampleRow row;
  row.params = &params;
  const auto candidates = oracle_distribution(logits, row);
  constexpr int kDraws = 55000;
  std::map<std::int32_t, int> counts;
  std::vector<std::int32_t> generated;
  for (int i = 0; i < kDraws; ++i) {
    row.generated = {generated.data(), generated.size()};
    ++counts[sample(logits, row).token];
    generated.push_back(0);
  }
  double statistic = 0;
  for (const OracleCandidate& candidate : candidates) {
    const double expected = candidate.probability * kDraws;
    statistic += std::pow(counts[candidate.token] - expected, 2) / expected;
  }
  EXPECT_LT(statistic, chi_square_bound(99));
}

TEST_P(SamplingIsa, DrawsDeepInAFlatVocabulary) {
  // Equal logits: the order is by id, so that the draw can be told in advance.
  const std::vector<float> logits(128256, 0.25F);
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    SamplingParams params;
    params.seed = seed;
    const auto expected = static_cast<std::int32_t>(double{uniform_draw(seed, 0)} * 128256);
    EXPECT_NEAR(token(logits, params), expected, 1);
    params.top_k = 1000;
    EXPECT_EQ(token(logits, params),
              static_cast<std::int32_t>(double{uniform_draw(seed, 0)} * 1000));
    params.top_k = 0;
    params.top_p = 0.5F;
    EXPECT_NEAR(token(logits, params),
                static_cast<std::int32_t>(double{uniform_draw(seed, 0)} * 64128), 1);
  }
}

TEST_P(SamplingIsa, GreedyTakesTheLowerOfEqualTokens) {
  SamplingParams params;
  params.temperature = 0.0F;
  std::vector<float> logits(70, -1.0F);
  logits[41] = logits[66] = logits[17] = 2.0F;
  EXPECT_EQ(token(logits, params), 17);
  params.top_k = 3;
  params.top_p = 0.1F;
  params.min_p = 0.5F;
  EXPECT_EQ(token(logits, params), 17);
  params.temperature = 1e-38F;  // as good as greedy, and no overflow on the way
  params.top_k = 1;
  EXPECT_EQ(token(logits, params), 17);
  params.logit_bias = {{66, 0.5F}, {66, 0.5F}, {41, 0.75F}};
  EXPECT_EQ(token(logits, params), 66);
}

TEST_P(SamplingIsa, TopKKeepsLowerIdsAmongEquals) {
  SamplingParams params;
  params.top_k = 3;
  std::vector<float> logits(1000, 1.0F);
  logits[900] = 1.5F;
  std::map<std::int32_t, int> counts;
  for (params.seed = 0; params.seed < 300; ++params.seed) ++counts[token(logits, params)];
  ASSERT_EQ(counts.size(), 3U);
  EXPECT_GT(counts[900], 0);
  EXPECT_GT(counts[0], 0);
  EXPECT_GT(counts[1], 0);
}

TEST_P(SamplingIsa, LogprobsAreTheModelsOwn) {
  std::mt19937 random(4);
  const std::vector<float> logits = random_logits(1000, 4.0F, random);
  const std::vector<double> expected = oracle_logprobs(logits);
  SamplingParams params;
  params.temperature = 0.3F;
  params.top_k = 2;
  params.top_logprobs = 5;
  params.logit_bias = {{123, 50.0F}};
  params.presence_penalty = 1.0F;
  const std::vector<std::int32_t> generated = {123, 7};
  SampleRow row;
  row.params = &params;
  row.generated = generated;
  const SampledToken result = sample(logits, row);
  EXPECT_EQ(result.token, 123);
  EXPECT_NEAR(result.logprob, expected[123], 1e-5);
  ASSERT_EQ(result.top.size(), 5U);
  std::vector<double> sorted = expected;
  std::sort(sorted.rbegin(), sorted.rend());
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_NEAR(result.top[i].logprob, sorted[i], 1e-5);
    EXPECT_NEAR(result.top[i].logprob, expected[static_cast<std::size_t>(result.top[i].token)],
                1e-5);
  }

  params.top_logprobs = 0;
  EXPECT_TRUE(sample(logits, row).top.empty());
  EXPECT_NEAR(sample(logits, row).logprob, expected[123], 1e-5);
  params.top_logprobs = -1;
  EXPECT_EQ(sample(logits, row).logprob, 0.0F);
  params.top_logprobs = 5000;  // more than there are
  EXPECT_EQ(sample(logits, row).top.size(), 1000U);
}

TEST_P(SamplingIsa, LogitsThatAreNotFiniteNeverLeadOutOfRange) {
  SamplingParams greedy;
  greedy.temperature = 0.0F;
  EXPECT_EQ(token({kNaN, 1.0F, kNaN}, greedy), 1);
  EXPECT_EQ(token({kNaN, -kInfinity, kNaN}, greedy), 0);
  EXPECT_EQ(token({0.0F, kInfinity, kNaN, kInfinity}, greedy), 1);

  SamplingParams params;
  params.top_logprobs = 2;
  for (params.seed = 0; params.seed < 50; ++params.seed) {
    EXPECT_EQ(token({kNaN, 1.0F, -kInfinity}, params), 1);
    EXPECT_EQ(token({0.0F, kInfinity, 3.0F}, params), 1);
    SampleRow row;
    row.params = &params;
    const std::uint32_t allowed[] = {0b1100};
    row.allowed = allowed;
    const SampledToken result = sample({1.0F, 2.0F, kNaN, -kInfinity}, row);
    EXPECT_EQ(result.token, 2);  // no allowed token has a probability: the lowest of them
    EXPECT_TRUE(std::isfinite(result.logprob));
    const SampledToken all_bad = sample({kNaN, kNaN, kNaN, kNaN}, row);
    EXPECT_EQ(all_bad.token, 2);
    EXPECT_TRUE(std::isfinite(all_bad.logprob));
    for (const TokenLogprob& top : all_bad.top) EXPECT_TRUE(std::isfinite(top.logprob));
  }
  params.logit_bias = {{1, kInfinity}, {2, kNaN}};
  EXPECT_EQ(token({5.0F, 1.0F, 9.0F}, params), 1);
}

TEST_P(SamplingIsa, IgnoresIdsOutsideTheVocabulary) {
  SamplingParams params;
  params.temperature = 0.0F;
  params.repetition_penalty = 2.0F;
  params.frequency_penalty = 1.0F;
  params.logit_bias = {{-1, 100.0F}, {3, 100.0F}, {1 << 30, 100.0F}};
  const std::vector<std::int32_t> ids = {-5, 3, 1 << 30};
  SampleRow row;
  row.params = &params;
  row.prompt = ids;
  row.generated = ids;
  EXPECT_EQ(sample({1.0F, 2.0F, 0.0F}, row).token, 1);
}

TEST_P(SamplingIsa, ForgetsOneRowBeforeTheNext) {
  SamplingParams params;
  params.temperature = 0.0F;
  params.frequency_penalty = 10.0F;
  params.repetition_penalty = 4.0F;
  const std::vector<std::int32_t> generated = {1, 1};
  SampleRow penalised;
  penalised.params = &params;
  penalised.prompt = generated;
  penalised.generated = generated;
  SampleRow fresh;
  fresh.params = &params;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(sample({1.0F, 2.0F}, penalised).token, 0);
    EXPECT_EQ(sample({1.0F, 2.0F}, fresh).token, 1);
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, SamplingIsa, every_isa(), isa_name);

TEST(Sampling, RefusesRowsThatCannotBeSampled) {
  SamplingParams params;
  SampleRow row;
  EXPECT_THROW(RowSampler::check(row, 40), std::invalid_argument);
  row.params = &params;
  EXPECT_NO_THROW(RowSampler::check(row, 40));
  const std::uint32_t short_mask[] = {1};
  row.allowed = short_mask;
  EXPECT_THROW(RowSampler::check(row, 40), std::invalid_argument);
  const std::uint32_t nothing[] = {0, 0xFFFFFF00};  // bits past the vocabulary do not count
  row.allowed = nothing;
  EXPECT_THROW(RowSampler::check(row, 40), std::invalid_argument);
  EXPECT_NO_THROW(RowSampler::check(row, 41));
}

}  // namespace
}  // namespace mobius
