// The oracle judges every backend, so it is held against values worked out by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>

#include "kernels/oracle/attention.h"
#include "kernels/oracle/ops.h"
#include "kernels/oracle/sampling.h"

namespace mobius {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(OracleRound, MatchesTheBitsOfBf16) {
  EXPECT_EQ(round_to(DType::bf16, 1.0F), 1.0F);
  EXPECT_EQ(round_to(DType::bf16, 1.00390625F), 1.0F);       // a tie goes to the even one below
  EXPECT_EQ(round_to(DType::bf16, 1.01171875F), 1.015625F);  // ... and above
  EXPECT_EQ(round_to(DType::bf16, 3.4e38F), kInfinity);
  EXPECT_EQ(round_to(DType::bf16, -3.4e38F), -kInfinity);
  EXPECT_TRUE(std::isnan(round_to(DType::bf16, std::nanf(""))));
  std::mt19937 random(1);
  for (int i = 0; i < 100000; ++i) {
    const auto bits = static_cast<std::uint32_t>(random());
    const auto value = std::bit_cast<float>(bits);
    if (std::isnan(value)) continue;
    const std::uint32_t expected = (bits + 0x7FFFU + (bits >> 16 & 1U)) & 0xFFFF0000U;
    ASSERT_EQ(std::bit_cast<std::uint32_t>(round_to(DType::bf16, value)), expected) << value;
  }
}

TEST(OracleRound, KnowsHalfPrecision) {
  EXPECT_EQ(round_to(DType::f16, 65504.0F), 65504.0F);
  EXPECT_EQ(round_to(DType::f16, 65519.0F), 65504.0F);
  EXPECT_EQ(round_to(DType::f16, 65520.0F), kInfinity);
  EXPECT_EQ(round_to(DType::f16, 0x1p-24F), 0x1p-24F);
  EXPECT_EQ(round_to(DType::f16, 0x1p-25F), 0.0F);
  EXPECT_EQ(round_to(DType::f16, 1.0F + 0x1p-11F), 1.0F);
}

TEST(OracleOps, MatchValuesByHand) {
  const float in[] = {3, 4, 1, 1};
  const float weight[] = {1, 2};
  EXPECT_THAT(
      oracle_rms_norm(in, weight, 0.0),
      ElementsAre(DoubleNear(3 / std::sqrt(12.5), 1e-12), DoubleNear(8 / std::sqrt(12.5), 1e-12),
                  DoubleNear(1, 1e-12), DoubleNear(2, 1e-12)));
  const float matrix[] = {1, 0, 0, 1, 2, 3};  // [3, 2]
  EXPECT_THAT(oracle_matmul(in, matrix, 2, 3, 2), ElementsAre(3, 4, 18, 1, 1, 5));
  const float head[] = {1, 2, 3, 4};
  const float frequencies[] = {1.0F, 0.5F};
  EXPECT_THAT(oracle_rope(head, 2, frequencies),
              ElementsAre(DoubleNear(std::cos(2) - 3 * std::sin(2), 1e-12),
                          DoubleNear(2 * std::cos(1) - 4 * std::sin(1), 1e-12),
                          DoubleNear(3 * std::cos(2) + std::sin(2), 1e-12),
                          DoubleNear(4 * std::cos(1) + 2 * std::sin(1), 1e-12)));
  EXPECT_THAT(oracle_silu_mul(in, 2), ElementsAre(DoubleNear(3 / (1 + std::exp(-3)), 1e-12),
                                                  DoubleNear(4 / (1 + std::exp(-4)), 1e-12)));
  const double scores[] = {1000, 1000 + std::log(3)};
  EXPECT_THAT(oracle_softmax(scores),
              ElementsAre(DoubleNear(0.25, 1e-12), DoubleNear(0.75, 1e-12)));
}

TEST(OracleSelect, CountsTheCurrentBlockAndBreaksTiesDownwards) {
  const double scores[] = {1, 5, 3, 5, 3};
  EXPECT_THAT(oracle_select(scores, 1).blocks, ElementsAre(5));
  EXPECT_EQ(oracle_select(scores, 1).gap, std::numeric_limits<double>::infinity());
  EXPECT_THAT(oracle_select(scores, 2).blocks, ElementsAre(1, 5));
  EXPECT_EQ(oracle_select(scores, 2).gap, 0);
  EXPECT_THAT(oracle_select(scores, 3).blocks, ElementsAre(1, 3, 5));
  EXPECT_EQ(oracle_select(scores, 3).gap, 2);
  EXPECT_THAT(oracle_select(scores, 4).blocks, ElementsAre(1, 2, 3, 5));
  EXPECT_THAT(oracle_select(scores, 100).blocks, ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(oracle_select({}, 3).blocks, ElementsAre(0));
  EXPECT_THROW(oracle_select(scores, 0), std::invalid_argument);
}

// One KV head of one dimension, so that every number can be seen.
TEST(OracleAttention, FollowsTheRulesOnASmallSequence) {
  const float keys[] = {1, 3, 2, 4, -1, -1, 7};
  const float values[] = {10, 20, 30, 40, 50, 60, 70};
  OracleSequence sequence;
  sequence.tokens = 7;
  sequence.kv_heads = 1;
  sequence.head_dim = 1;
  sequence.page_tokens = 1;
  sequence.keys = keys;
  sequence.values = values;
  EXPECT_THAT(oracle_centroids(sequence, 2), ElementsAre(2, 3, -1));

  const float query[] = {1};
  // Position 6 is alone in block 3; block 1 has the best centroid.
  const OracleAttention moba = oracle_attention(sequence, AttentionPolicy::moba(2, 2), query, 1, 6);
  EXPECT_THAT(moba.selections.at(0).blocks, ElementsAre(1, 3));
  EXPECT_EQ(moba.selections.at(0).gap, 1);
  const double a = std::exp(2 - 7);
  const double b = std::exp(4 - 7);
  EXPECT_NEAR(moba.out.at(0), (30 * a + 40 * b + 70) / (a + b + 1), 1e-9);

  // Position 2 does not see token 3 of its own block.
  const OracleAttention causal =
      oracle_attention(sequence, AttentionPolicy::moba(2, 1), query, 1, 2);
  EXPECT_NEAR(causal.out.at(0), 30, 1e-9);

  // Where k covers every block, MoBA is full attention.
  const float queries[] = {1, -2, 0.5F, 3, 1, 2, -1};
  const OracleAttention all =
      oracle_attention(sequence, AttentionPolicy::moba(2, 4), queries, 1, 0);
  const OracleAttention full = oracle_attention(sequence, AttentionPolicy::full(), queries, 1, 0);
  for (std::size_t i = 0; i < 7; ++i) EXPECT_NEAR(all.out[i], full.out[i], 1e-9);

  EXPECT_THROW(oracle_attention(sequence, AttentionPolicy::full(), query, 1, 7),
               std::invalid_argument);
  sequence.page_tokens = 2;
  EXPECT_THROW(oracle_attention(sequence, AttentionPolicy::moba(3, 1), query, 1, 0),
               std::invalid_argument);
}

TEST(OracleCentroids, RoundOnceToTheStoredType) {
  const float keys[] = {1.0F, 1.0078125F};  // the mean lies between two bf16 values
  OracleSequence sequence;
  sequence.tokens = 2;
  sequence.kv_heads = 1;
  sequence.head_dim = 1;
  sequence.page_tokens = 2;
  sequence.keys = keys;
  EXPECT_THAT(oracle_centroids(sequence, 2), ElementsAre(1.0F));
  sequence.dtype = DType::f32;
  EXPECT_THAT(oracle_centroids(sequence, 2), ElementsAre(1.00390625F));
}

TEST(OracleSampling, AppliesTheStepsInOrder) {
  const float logits[] = {std::log(1.0F), std::log(4.0F), std::log(2.0F), std::log(3.0F)};
  SamplingParams params;
  SampleRow row;
  row.params = &params;
  const auto tokens = [&] {
    std::vector<std::int32_t> ids;
    for (const OracleCandidate& c : oracle_distribution(logits, row)) ids.push_back(c.token);
    return ids;
  };
  EXPECT_THAT(tokens(), ElementsAre(1, 3, 2, 0));
  EXPECT_NEAR(oracle_distribution(logits, row)[1].probability, 0.3, 1e-6);
  params.top_k = 3;  // 4/9, 3/9, 2/9
  EXPECT_THAT(tokens(), ElementsAre(1, 3, 2));
  params.top_p = 0.7F;  // of what top-k left: 7/9 >= 0.7 while 4/9 < 0.7
  EXPECT_THAT(tokens(), ElementsAre(1, 3));
  params.min_p = 0.8F;  // 3/4 of the most likely one's
  EXPECT_THAT(tokens(), ElementsAre(1));
  params = {};
  params.temperature = 0.0F;
  EXPECT_THAT(tokens(), ElementsAre(1));
  params.logit_bias = {{0, 5.0F}};
  EXPECT_THAT(tokens(), ElementsAre(0));
  params = {};
  const std::int32_t generated[] = {1, 1};
  row.generated = generated;
  params.frequency_penalty = 0.5F;
  params.presence_penalty = 0.1F;
  EXPECT_THAT(tokens(), ElementsAre(3, 2, 1, 0));
  const std::uint32_t allowed[] = {0b0101};
  row.allowed = allowed;
  EXPECT_THAT(tokens(), ElementsAre(2, 0));
}

TEST(OracleSampling, DrawsByLayingCandidatesEndToEnd) {
  const OracleCandidate candidates[] = {{7, 0.5}, {2, 0.25}, {9, 0.25}};
  EXPECT_EQ(oracle_draw(candidates, 0.0), 7);
  EXPECT_EQ(oracle_draw(candidates, 0.49), 7);
  EXPECT_EQ(oracle_draw(candidates, 0.5), 2);
  EXPECT_EQ(oracle_draw(candidates, 0.75), 9);
  EXPECT_EQ(oracle_draw(candidates, 0.999999), 9);
}

}  // namespace
}  // namespace mobius
