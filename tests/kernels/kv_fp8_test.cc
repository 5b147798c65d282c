// The KV cache with quantised keys and values (moba.md, "Quantised keys and values") on the CPU.
// attention_test and attention_chunking_test run over it too.

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/fp8.h"
#include "kernels/oracle/attention.h"
#include "kernels/oracle/ops.h"
#include "tests/kernels/attention_fixture.h"
#include "tests/kernels/isas.h"

namespace mobius {
namespace {

AttentionSizes small(DType dtype, std::int32_t centroid_block = 0) {
  return {4, 2, 32, 16, centroid_block, dtype, true};
}

class KvFp8 : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, KvFp8, testing::Values(DType::bf16, DType::f32),
                         [](const testing::TestParamInfo<DType>& dtype) {
                           return std::string(name_of(dtype.param));
                         });

TEST_P(KvFp8, StoresWhatTheOracleQuantises) {
  AttentionFixture fixture(small(GetParam()), 16, 2, detect_isa());
  fixture.poison_free_pages();
  TestSequence sequence = fixture.make_sequence(150, AttentionPolicy::full(), 1);
  // Vectors of any magnitude: each has a scale of its own.
  for (std::size_t t = 0; t < 150; ++t) {
    for (std::size_t i = 128; i < 256; ++i) {
      sequence.qkv[t * 256 + i] =
          std::ldexp(sequence.qkv[t * 256 + i], static_cast<int>(t / 2) - 40);
    }
  }
  fixture.run(sequence, 60);
  const OracleSequence cache = fixture.gather(sequence);
  for (std::size_t t = 0; t < 150; ++t) {
    const std::span<const float> row = std::span(sequence.qkv).subspan(t * 256, 256);
    for (std::size_t g = 0; g < 2; ++g) {
      const std::vector<float> value = oracle_quantise(row.subspan(192 + 32 * g, 32));
      const std::vector<double> rotated = oracle_rope(
          row.subspan(128 + 32 * g, 32), static_cast<std::int64_t>(t), fixture.inverse_frequencies);
      double largest = 0;
      for (const double x : rotated) largest = std::max(largest, std::abs(x));
      for (std::size_t d = 0; d < 32; ++d) {
        ASSERT_EQ(cache.values[t * 64 + 32 * g + d], value[d]) << t;
        // fp32's error may move a key to the code beside it: half a step, and a little.
        const double step = std::max(std::abs(rotated[d]) / 8, largest * 0x1p-16);
        ASSERT_NEAR(double{cache.keys[t * 64 + 32 * g + d]}, rotated[d], 0.51 * step) << t;
      }
    }
  }
}

TEST_P(KvFp8, CentroidsAreOfQuantisedKeysToTheBit) {
  for (const std::int32_t stored : {0, 48}) {
    for (const std::int32_t chunk : {1, 7, 300}) {
      AttentionFixture fixture(small(GetParam(), stored), 32, 2, detect_isa());
      fixture.poison_free_pages();
      TestSequence sequence = fixture.make_sequence(300, AttentionPolicy::full(), 2);
      fixture.run(sequence, chunk);
      const OracleSequence cache = fixture.gather(sequence);
      for (const std::int32_t block : {16, 48, 96}) {
        const std::vector<float> expected = oracle_centroids(cache, block);
        for (std::int32_t b = 0; b < 300 / block; ++b) {
          for (std::int32_t g = 0; g < 2; ++g) {
            std::vector<std::byte> centroid(32 * fixture.element());
            block_centroid(centroid.data(), fixture.pool, kTestLayer, g, sequence.pages, block, b);
            const std::vector<float> wide = fixture.widen(centroid);
            EXPECT_EQ(std::memcmp(wide.data(), &expected[static_cast<std::size_t>(b * 2 + g) * 32],
                                  32 * sizeof(float)),
                      0)
                << "block " << block << " chunk " << chunk << " stored " << stored;
          }
        }
      }
    }
  }
}

TEST(KvFp8Shape, TakesHalfOfWhatBf16Takes) {
  KvShape shape{3, 10, 16, 2, 64, DType::bf16, 32, true};
  const std::size_t tiles = 60;
  EXPECT_EQ(kv_bytes(shape), tiles * (2 * 16 * (64 + 1) + 64 * 4 + 64 * 2));
  shape.dtype = DType::f32;
  EXPECT_EQ(kv_bytes(shape), tiles * (2 * 16 * (64 + 1) + 64 * 4 + 64 * 4));
}

class KvFp8Attention : public testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Isas, KvFp8Attention, every_isa(), isa_name);

/// A sequence in a cache that is not quantised, which holds the very values of one that is.
TestSequence unquantised(AttentionFixture& to, const OracleSequence& cache,
                         const TestSequence& from) {
  TestSequence sequence = to.make_sequence(from.tokens, from.policy, 1);
  const std::size_t dim = static_cast<std::size_t>(to.sizes.head_dim);
  const auto columns = static_cast<std::size_t>(to.sizes.heads + 2 * to.sizes.kv_heads) * dim;
  const std::size_t kv = static_cast<std::size_t>(to.sizes.kv_heads) * dim;
  // Without rotation, keys are stored as they come.
  std::fill(to.inverse_frequencies.begin(), to.inverse_frequencies.end(), 0.0F);
  for (std::size_t t = 0; t < static_cast<std::size_t>(from.tokens); ++t) {
    float* row = sequence.qkv.data() + t * columns;
    std::copy_n(cache.keys.begin() + static_cast<std::ptrdiff_t>(t * kv), kv,
                row + columns - 2 * kv);
    std::copy_n(cache.values.begin() + static_cast<std::ptrdiff_t>(t * kv), kv, row + columns - kv);
  }
  return sequence;
}

TEST_P(KvFp8Attention, IsThatOfTheSameValuesUnquantisedToTheBit) {
  struct Case {
    std::int32_t heads, kv_heads, head_dim, page;
    AttentionPolicy policy;
    std::int32_t tokens, chunk;
    DType dtype;
  };
  const Case cases[] = {
      {4, 1, 64, 128, AttentionPolicy::full(), 300, 100, DType::bf16},
      {4, 2, 128, 16, AttentionPolicy::moba(32, 4), 257, 64, DType::bf16},
      {8, 1, 32, 48, AttentionPolicy::full(), 145, 1, DType::bf16},
      {3, 3, 80, 1024, AttentionPolicy::moba(1024, 2), 3500, 900, DType::bf16},
      {6, 2, 16, 160, AttentionPolicy::full(), 5001, 3000, DType::f32},
      {2, 2, 64, 16, AttentionPolicy::moba(16, 3), 190, 50, DType::f32},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE("head_dim " + std::to_string(c.head_dim) + " page " + std::to_string(c.page));
    AttentionSizes sizes{c.heads, c.kv_heads, c.head_dim, c.page, 0, c.dtype, true};
    const std::int32_t pages = c.tokens / c.page + 2;
    AttentionFixture fixture(sizes, pages, 2, GetParam());
    fixture.poison_free_pages();
    std::fill(fixture.inverse_frequencies.begin(), fixture.inverse_frequencies.end(), 0.0F);
    TestSequence sequence = fixture.make_sequence(c.tokens, c.policy, 60);
    fixture.run(sequence, c.chunk);

    sizes.fp8 = false;
    AttentionFixture plain(sizes, pages, 2, GetParam());
    plain.poison_free_pages();
    TestSequence same = unquantised(plain, fixture.gather(sequence), sequence);
    const auto columns =
        static_cast<std::size_t>(c.heads + 2 * c.kv_heads) * static_cast<std::size_t>(c.head_dim);
    const auto q_columns = static_cast<std::size_t>(c.heads * c.head_dim);
    for (std::size_t t = 0; t < static_cast<std::size_t>(c.tokens); ++t) {
      std::copy_n(sequence.qkv.begin() + static_cast<std::ptrdiff_t>(t * columns), q_columns,
                  same.qkv.begin() + static_cast<std::ptrdiff_t>(t * columns));
    }
    plain.run(same, c.chunk);
    EXPECT_TRUE(sequence.q == same.q);
    EXPECT_TRUE(sequence.out == same.out);
  }
}

TEST_P(KvFp8Attention, AVectorThatIsNotFiniteIsNaNAndStaysInItsSequence) {
  for (const float bad :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN()}) {
    AttentionFixture fixture({2, 1, 32, 16, 0, DType::bf16, true}, 8, 1, GetParam());
    TestSequence sick = fixture.make_sequence(20, AttentionPolicy::full(), 3);
    TestSequence sound = fixture.make_sequence(20, AttentionPolicy::full(), 4);
    sick.qkv[10 * 128 + 96 + 5] = bad;  // a value of token 10
    fixture.step(std::vector<TestSlice>{{&sick, 20}, {&sound, 20}});
    const std::vector<float> out = fixture.widen(sick.out);
    for (std::size_t i = 10 * 64; i < out.size(); ++i) ASSERT_TRUE(std::isnan(out[i])) << i;
    for (const float x : fixture.widen(sound.out)) ASSERT_TRUE(std::isfinite(x));
  }
}

TEST(KvFp8Error, AgainstAnUnquantisedCache) {
  const auto run = [](bool fp8) {
    AttentionFixture fixture({8, 2, 64, 64, 0, DType::bf16, fp8}, 20, 2, detect_isa());
    TestSequence sequence = fixture.make_sequence(1000, AttentionPolicy::full(), 70);
    fixture.run(sequence, 500);
    return fixture.widen(sequence.out);
  };
  const std::vector<float> exact = run(false);
  const std::vector<float> quantised = run(true);
  double error = 0;
  double norm = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    error += std::pow(double{quantised[i]} - double{exact[i]}, 2);
    norm += std::pow(double{exact[i]}, 2);
  }
  const double relative = std::sqrt(error / norm);
  std::printf("attention of normal keys and values, fp8 against bf16: %.2f %%\n", 100 * relative);
  // Values alone are 2.6 % off, each on its own; keys move the weights by as much again.
  EXPECT_LT(relative, 0.06);
  EXPECT_GT(relative, 0.005) << "nothing was quantised";
}

}  // namespace
}  // namespace mobius
