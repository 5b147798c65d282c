#include "kernels/cpu/matmul.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>

#include "kernels/oracle/ops.h"
#include "tests/kernels/isas.h"
#include "tests/kernels/test_data.h"

namespace mobius {
namespace {

/// Sum over k of |x| |w|: what rounding errors of a sum are measured against.
std::vector<double> magnitudes(std::vector<float> x, std::vector<float> w, std::int64_t rows,
                               std::int64_t n, std::int64_t k) {
  for (float& value : x) value = std::abs(value);
  for (float& value : w) value = std::abs(value);
  return oracle_matmul(x, w, rows, n, k);
}

struct Case {
  std::int64_t rows;
  std::int64_t n;
  std::int64_t k;
};

class MatmulIsa : public testing::TestWithParam<Isa> {};

TEST_P(MatmulIsa, MatchesTheOracle) {
  std::mt19937 random(7);
  ThreadPool pool(2);
  Matmul matmul(GetParam(), pool);
  const Case cases[] = {{1, 1, 1},     {1, 4, 32},    {2, 3, 31},    {3, 5, 33},   {5, 64, 64},
                        {6, 65, 95},   {7, 130, 160}, {13, 63, 257}, {4, 2, 1024}, {1, 9, 1025},
                        {8, 6, 2049},  {9, 10, 3000}, {64, 67, 100}, {1, 200, 48}, {600, 5, 40},
                        {513, 70, 33}, {32, 1, 4100}};
  for (const DType type : kTypes) {
    for (const Case& c : cases) {
      SCOPED_TRACE(testing::Message() << name_of(type) << " [" << c.rows << ", " << c.k << "] x ["
                                      << c.n << ", " << c.k << "]");
      TestMatrix x = TestMatrix::random(type, c.rows, c.k, random);
      const TestMatrix w = TestMatrix::random(type, c.n, c.k, random);
      const Weight weight = weight_of({w.host()});
      const auto expected = oracle_matmul(x.values(), w.values(), c.rows, c.n, c.k);
      const auto bound = magnitudes(x.values(), w.values(), c.rows, c.n, c.k);

      TestMatrix out(DType::f32, c.rows, c.n);
      matmul(out.tensor(), x.tensor(), weight, false);
      TestMatrix rounded(DType::bf16, c.rows, c.n);
      matmul(rounded.tensor(), x.tensor(), weight, false);
      TestMatrix added = TestMatrix::random(DType::f32, c.rows, c.n, random, 10.0F);
      const std::vector<float> before = added.values();
      matmul(added.tensor(), x.tensor(), weight, true);

      ASSERT_TRUE(out.margins_intact() && rounded.margins_intact() && added.margins_intact());
      for (std::int64_t i = 0; i < c.rows * c.n; ++i) {
        const auto at = static_cast<std::size_t>(i);
        // Lanes and chunks keep sums short: far fewer than k roundings lie on any path.
        ASSERT_NEAR(out.get(i), expected[at], 1e-5 * bound[at] + 1e-30) << "element " << i;
        ASSERT_EQ(rounded.get(i), round_to(DType::bf16, out.get(i))) << "element " << i;
        ASSERT_EQ(added.get(i), before[at] + out.get(i)) << "element " << i;
      }
    }
  }
}

TEST_P(MatmulIsa, GivesARowTheSameBitsInAnyBatchOnAnyThreads) {
  std::mt19937 random(11);
  for (const DType type : kTypes) {
    for (const Case& c : {Case{600, 70, 1100}, Case{37, 515, 96}}) {
      TestMatrix x = TestMatrix::random(type, c.rows, c.k, random);
      const TestMatrix w = TestMatrix::random(type, c.n, c.k, random);
      const Weight weight = weight_of({w.host()});
      ThreadPool one(1);
      TestMatrix all(DType::f32, c.rows, c.n);
      Matmul(GetParam(), one)(all.tensor(), x.tensor(), weight, false);
      ThreadPool three(3);
      Matmul matmul(GetParam(), three);
      for (std::int64_t batch : {1, 2, 3, 4, 5, 6, 7, 12, 31, 64, 512, 513, 600}) {
        batch = std::min(batch, c.rows);
        const std::int64_t first =
            std::uniform_int_distribution<std::int64_t>(0, c.rows - batch)(random);
        auto* data = static_cast<std::byte*>(x.data()) +
                     static_cast<std::size_t>(first * c.k) * size_of(type);
        TestMatrix some(DType::f32, batch, c.n);
        matmul(some.tensor(), Tensor{data, type, batch, c.k}, weight, false);
        for (std::int64_t row = 0; row < batch; ++row) {
          ASSERT_EQ(some.row_bytes(row), all.row_bytes(first + row))
              << name_of(type) << ", " << batch << " rows, row " << row;
        }
      }
    }
  }
}

TEST_P(MatmulIsa, ReadsWeightsWhateverTheirAlignment) {
  std::mt19937 random(3);
  ThreadPool pool(2);
  Matmul matmul(GetParam(), pool);
  for (const DType type : kTypes) {
    TestMatrix x = TestMatrix::random(type, 9, 77, random);
    std::vector<float> reference;
    for (std::size_t misalign = 0; misalign < 64; misalign += size_of(type)) {
      std::mt19937 same(5);
      const TestMatrix w = TestMatrix::random(type, 66, 77, same, 1.0F, misalign);
      TestMatrix out(DType::f32, 9, 66);
      matmul(out.tensor(), x.tensor(), weight_of({w.host()}), false);
      if (misalign == 0) reference = out.values();
      ASSERT_EQ(out.values(), reference) << "off by " << misalign;
    }
  }
}

TEST_P(MatmulIsa, TreatsRowBlocksAsOneMatrix) {
  std::mt19937 random(9);
  ThreadPool pool(2);
  Matmul matmul(GetParam(), pool);
  for (const std::int64_t rows : {1, 6, 19}) {
    TestMatrix x = TestMatrix::random(DType::bf16, rows, 100, random);
    const TestMatrix w = TestMatrix::random(DType::bf16, 300, 100, random);
    const auto block = [&](std::int64_t first, std::int64_t count) {
      return HostTensor{static_cast<const std::uint16_t*>(w.data()) + first * 100, DType::bf16,
                        count, 100};
    };
    TestMatrix whole(DType::f32, rows, 300);
    matmul(whole.tensor(), x.tensor(), weight_of({w.host()}), false);
    TestMatrix parts(DType::f32, rows, 300);
    matmul(parts.tensor(), x.tensor(), weight_of({block(0, 65), block(65, 1), block(66, 234)}),
           false);
    EXPECT_EQ(parts.values(), whole.values());
    EXPECT_TRUE(parts.margins_intact());
  }
}

TEST_P(MatmulIsa, KeepsInfinityAndNaNInTheirRow) {
  ThreadPool pool(1);
  Matmul matmul(GetParam(), pool);
  std::mt19937 random(2);
  for (const DType type : kTypes) {
    TestMatrix x = TestMatrix::random(type, 3, 40, random);
    x.set(40 + 39, std::numeric_limits<float>::infinity());
    x.set(80 + 1, std::numeric_limits<float>::quiet_NaN());
    TestMatrix w = TestMatrix::random(type, 5, 40, random);
    for (std::int64_t n = 0; n < 5; ++n) w.set(n * 40 + 39, 2.0F);
    TestMatrix out(DType::f32, 3, 5);
    matmul(out.tensor(), x.tensor(), weight_of({w.host()}), false);
    TestMatrix rounded(DType::bf16, 3, 5);
    matmul(rounded.tensor(), x.tensor(), weight_of({w.host()}), false);
    for (std::int64_t n = 0; n < 5; ++n) {
      EXPECT_TRUE(std::isfinite(out.get(n)));
      EXPECT_EQ(out.get(5 + n), std::numeric_limits<float>::infinity());
      EXPECT_TRUE(std::isnan(out.get(10 + n)));
      EXPECT_EQ(rounded.get(5 + n), std::numeric_limits<float>::infinity());
      EXPECT_TRUE(std::isnan(rounded.get(10 + n)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, MatmulIsa, every_isa(), isa_name);

TEST(Matmul, RefusesShapesThatDoNotFitAndWritesNothing) {
  ThreadPool pool(1);
  Matmul matmul(detect_isa(), pool);
  TestMatrix x(DType::bf16, 2, 32);
  const TestMatrix w(DType::bf16, 4, 32);
  const Weight weight = weight_of({w.host()});
  TestMatrix out(DType::f32, 2, 4);
  const auto refuses = [&](Tensor o, Tensor in, const Weight& with, bool accumulate) {
    EXPECT_THROW(matmul(o, in, with, accumulate), std::invalid_argument);
    EXPECT_TRUE(out.untouched());
  };
  Tensor bad = out.tensor();
  bad.rows = 1;
  refuses(bad, x.tensor(), weight, false);
  bad = out.tensor();
  bad.cols = 3;
  refuses(bad, x.tensor(), weight, false);
  bad = out.tensor();
  bad.dtype = DType::f16;
  refuses(bad, x.tensor(), weight, false);
  bad = out.tensor();
  bad.dtype = DType::bf16;
  refuses(bad, x.tensor(), weight, true);
  bad = x.tensor();
  bad.cols = 31;
  refuses(out.tensor(), bad, weight, false);
  bad = x.tensor();
  bad.dtype = DType::f32;
  refuses(out.tensor(), bad, weight, false);
  bad = x.tensor();
  bad.dtype = DType::f16;
  refuses(out.tensor(), bad, weight, false);
  Weight mixed = weight;
  mixed.row_blocks.push_back({w.data(), DType::f32, 1, 32});
  refuses(out.tensor(), x.tensor(), mixed, false);
  Weight short_of_rows = weight;
  short_of_rows.row_blocks[0].rows = 3;
  refuses(out.tensor(), x.tensor(), short_of_rows, false);
  Tensor none = x.tensor().head(0);
  EXPECT_NO_THROW(matmul(out.tensor().head(0), none, weight, false));
  EXPECT_TRUE(out.untouched());
}

}  // namespace
}  // namespace mobius
