// The MoBA that models/training/ trains with, judged by the oracle on the same tensors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/oracle/attention.h"
#include "models/safetensors.h"

namespace mobius {
namespace {

/// Values of a bf16 tensor, and its shape.
struct Values {
  std::vector<std::int64_t> shape;
  std::vector<float> data;
};

Values read(const SafetensorsFile& file, const std::string& name) {
  const SafetensorsEntry& entry = file.entries().at(name);
  EXPECT_EQ(entry.dtype, DType::bf16) << name;
  Values values{entry.shape, std::vector<float>(entry.bytes / 2)};
  for (std::size_t i = 0; i < values.data.size(); ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, file.data(entry) + 2 * i, 2);
    values.data[i] = std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  return values;
}

struct Case {
  std::int32_t block;
  std::int32_t top_k;
};

class TrainingMoba : public testing::TestWithParam<Case> {};

TEST_P(TrainingMoba, ChoosesTheOraclesBlocksAndAgreesWithinBf16) {
  const SafetensorsFile file(MOBIUS_SOURCE_DIR "/tests/golden/training_moba.safetensors");
  const auto [block, top_k] = GetParam();
  const std::string name = std::to_string(block) + " " + std::to_string(top_k);
  const Values queries = read(file, "queries");  // [tokens, heads, dim]
  const Values keys = read(file, "keys");
  const Values values = read(file, "values");
  const Values chosen = read(file, "chosen " + name);  // [tokens, heads, blocks], 0 or 1
  const Values out = read(file, "out " + name);
  const auto heads = static_cast<std::int32_t>(queries.shape.at(1));
  const OracleSequence sequence{.tokens = keys.shape.at(0),
                                .kv_heads = static_cast<std::int32_t>(keys.shape.at(1)),
                                .head_dim = static_cast<std::int32_t>(keys.shape.at(2)),
                                .page_tokens = block,
                                .dtype = DType::bf16,
                                .keys = keys.data,
                                .values = values.data};
  const OracleAttention oracle =
      oracle_attention(sequence, AttentionPolicy::moba(block, top_k), queries.data, heads, 0);

  const auto blocks = static_cast<std::size_t>(chosen.shape.at(2));
  for (std::size_t row = 0; row < oracle.selections.size(); ++row) {
    std::vector<std::int32_t> marked;
    for (std::size_t i = 0; i < blocks; ++i) {
      if (chosen.data[row * blocks + i] != 0.0F) marked.push_back(static_cast<std::int32_t>(i));
    }
    ASSERT_THAT(marked, testing::ContainerEq(oracle.selections[row].blocks)) << "row " << row;
  }
  ASSERT_EQ(out.data.size(), oracle.out.size());
  double error = 0;
  double norm = 0;
  for (std::size_t i = 0; i < out.data.size(); ++i) {
    error += std::pow(out.data[i] - oracle.out[i], 2);
    norm += std::pow(oracle.out[i], 2);
  }
  EXPECT_LT(std::sqrt(error / norm), 5e-3);
}

INSTANTIATE_TEST_SUITE_P(Settings, TrainingMoba,
                         testing::Values(Case{16, 3}, Case{32, 4}, Case{64, 2}, Case{16, 1}),
                         [](const auto& test) {
                           return "block" + std::to_string(test.param.block) + "top" +
                                  std::to_string(test.param.top_k);
                         });

}  // namespace
}  // namespace mobius
