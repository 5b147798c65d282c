#include "kernels/cpu/ops.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/oracle/ops.h"
#include "tests/kernels/isas.h"
#include "tests/kernels/test_data.h"

namespace mobius {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Half a unit in the last place of bf16 is 2^-9 of the value.
double tolerance(DType type, double value) {
  return (type == DType::bf16 ? 0x1p-8 : 2e-6) * std::abs(value) + 1e-30;
}

class OpsIsa : public testing::TestWithParam<Isa> {};

TEST_P(OpsIsa, EmbedCopiesTheTokensRows) {
  std::mt19937 random(1);
  ThreadPool pool(2);
  for (const DType type : kTypes) {
    for (const std::int64_t cols : {1, 7, 64, 2048}) {
      const TestMatrix a = TestMatrix::random(type, 10, cols, random, 1.0F, 4);
      const TestMatrix b = TestMatrix::random(type, 3, cols, random);
      const std::vector<std::int32_t> tokens = {12, 0, 9, 10, 3, 3, 11};
      TestMatrix out(DType::f32, 7, cols);
      embed(out.tensor(), weight_of({a.host(), b.host()}), tokens, pool, GetParam());
      EXPECT_TRUE(out.margins_intact());
      for (std::int64_t row = 0; row < 7; ++row) {
        const std::int64_t token = tokens[static_cast<std::size_t>(row)];
        for (std::int64_t i = 0; i < cols; ++i) {
          const float expected =
              token < 10 ? a.get(token * cols + i) : b.get((token - 10) * cols + i);
          ASSERT_EQ(out.get(row * cols + i), expected);
        }
      }
    }
  }
}

TEST_P(OpsIsa, RmsNormMatchesTheOracle) {
  std::mt19937 random(2);
  ThreadPool pool(2);
  for (const DType out_type : kTypes) {
    for (const DType weight_type : kTypes) {
      for (const std::int64_t cols : {1, 3, 16, 33, 2048, 4097}) {
        const std::int64_t rows = cols > 2000 ? 20 : 5;
        TestMatrix in = TestMatrix::random(DType::f32, rows, cols, random, 3.0F);
        const TestMatrix w = TestMatrix::random(weight_type, 1, cols, random);
        TestMatrix out(out_type, rows, cols);
        rms_norm(out.tensor(), in.tensor(), weight_of({w.host()}), 1e-5F, pool, GetParam());
        const auto expected = oracle_rms_norm(in.values(), w.values(), static_cast<double>(1e-5F));
        EXPECT_TRUE(out.margins_intact());
        for (std::int64_t i = 0; i < rows * cols; ++i) {
          const double value = expected[static_cast<std::size_t>(i)];
          ASSERT_NEAR(out.get(i), value, tolerance(out_type, value)) << cols << " " << i;
        }
      }
    }
  }
}

TEST_P(OpsIsa, RmsNormOfZerosIsZero) {
  ThreadPool pool(1);
  TestMatrix in(DType::f32, 1, 20);
  TestMatrix w(DType::f32, 1, 20);
  for (std::int64_t i = 0; i < 20; ++i) {
    in.set(i, 0.0F);
    w.set(i, 2.0F);
  }
  TestMatrix out(DType::f32, 1, 20);
  rms_norm(out.tensor(), in.tensor(), weight_of({w.host()}), 1e-5F, pool, GetParam());
  EXPECT_EQ(out.values(), std::vector<float>(20, 0.0F));
}

TEST_P(OpsIsa, SiluMulMatchesTheOracle) {
  std::mt19937 random(3);
  ThreadPool pool(2);
  for (const DType out_type : kTypes) {
    for (const std::int64_t cols : {1, 15, 16, 100, 8192}) {
      TestMatrix in = TestMatrix::random(DType::f32, 7, 2 * cols, random, 8.0F);
      in.set(0, 60.0F);
      in.set(2 * cols, -60.0F);
      in.set(4 * cols, 0.0F);
      in.set(6 * cols, -1e30F);
      in.set(8 * cols, 1e30F);
      TestMatrix out(out_type, 7, cols);
      silu_mul(out.tensor(), in.tensor(), pool, GetParam());
      const auto expected = oracle_silu_mul(in.values(), cols);
      EXPECT_TRUE(out.margins_intact());
      for (std::int64_t i = 0; i < 7 * cols; ++i) {
        const double value = expected[static_cast<std::size_t>(i)];
        // Where exp(-gate) would overflow it is held at exp(88): silu is off by |gate| * e^-88.
        const double up = in.get(i / cols * 2 * cols + cols + i % cols);
        const double gate = in.get(i / cols * 2 * cols + i % cols);
        ASSERT_NEAR(out.get(i), value,
                    tolerance(out_type, value) + std::abs(gate * up) * std::exp(-87.5))
            << cols << " " << i;
      }
    }
  }
}

TEST_P(OpsIsa, RowsDoNotDependOnEachOtherNorOnThreads) {
  std::mt19937 random(4);
  ThreadPool one(1);
  ThreadPool many(3);
  TestMatrix in = TestMatrix::random(DType::f32, 50, 1000, random);
  const TestMatrix w = TestMatrix::random(DType::bf16, 1, 1000, random);
  const Weight weight = weight_of({w.host()});
  TestMatrix norm(DType::bf16, 50, 1000);
  rms_norm(norm.tensor(), in.tensor(), weight, 1e-6F, many, GetParam());
  TestMatrix silu(DType::bf16, 50, 500);
  silu_mul(silu.tensor(), in.tensor(), many, GetParam());
  for (std::int64_t row = 0; row < 50; ++row) {
    const Tensor alone{static_cast<float*>(in.data()) + row * 1000, DType::f32, 1, 1000};
    TestMatrix norm_alone(DType::bf16, 1, 1000);
    rms_norm(norm_alone.tensor(), alone, weight, 1e-6F, one, GetParam());
    ASSERT_EQ(norm_alone.row_bytes(0), norm.row_bytes(row));
    TestMatrix silu_alone(DType::bf16, 1, 500);
    silu_mul(silu_alone.tensor(), alone, one, GetParam());
    ASSERT_EQ(silu_alone.row_bytes(0), silu.row_bytes(row));
  }
}

TEST_P(OpsIsa, SumExpMatchesFloat64) {
  std::mt19937 random(5);
  const RowKernels& kernels = row_kernels(GetParam());
  for (const std::int64_t n : {1, 15, 256, 257, 5000}) {
    TestMatrix values = TestMatrix::random(DType::f32, 1, n, random, 10.0F);
    auto* data = static_cast<float*>(values.data());
    const float highest = kernels.clean_and_max(data, n);
    double expected = 0;
    for (std::int64_t i = 0; i < n; ++i) expected += std::exp((data[i] - highest) * 0.7F);
    EXPECT_NEAR(kernels.sum_exp(data, n, highest, 0.7F), expected, 1e-6 * expected);
  }
}

TEST_P(OpsIsa, CleanAndMaxOrdersWhatIsNotFinite) {
  const RowKernels& kernels = row_kernels(GetParam());
  std::vector<float> values(21, 1.0F);
  values[3] = std::numeric_limits<float>::quiet_NaN();
  values[18] = -kInfinity;
  values[20] = 4.0F;
  EXPECT_EQ(kernels.clean_and_max(values.data(), 21), 4.0F);
  EXPECT_EQ(values[3], -kInfinity);
  EXPECT_EQ(values[18], -kInfinity);
  values[17] = kInfinity;
  EXPECT_EQ(kernels.clean_and_max(values.data(), 21), std::numeric_limits<float>::max());
  EXPECT_EQ(kernels.clean_and_max(values.data(), 0), -kInfinity);
}

TEST_P(OpsIsa, ConvertsBetweenAllTypesToNearestEven) {
  std::mt19937 random(6);
  ThreadPool pool(2);
  for (const std::int64_t n : {1, 1000, 1025, 70000}) {
    std::vector<float> in(static_cast<std::size_t>(n));
    for (float& value : in) {
      value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
      if (std::isnan(value)) value = 0x1.004p-3F;
    }
    for (const DType middle : {DType::bf16, DType::f16, DType::f32}) {
      std::vector<std::byte> rounded(in.size() * size_of(middle));
      std::vector<float> out(in.size());
      convert(rounded.data(), middle, in.data(), DType::f32, n, pool, GetParam());
      convert(out.data(), DType::f32, rounded.data(), middle, n, pool, GetParam());
      for (std::size_t i = 0; i < in.size(); ++i) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(out[i]),
                  std::bit_cast<std::uint32_t>(round_to(middle, in[i])))
            << name_of(middle) << " " << in[i];
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, OpsIsa, every_isa(), isa_name);

TEST(Ops, HalfPrecisionRoundTripsEveryPattern) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = half_to_float(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(half_to_float(float_to_half(value))));
    } else {
      ASSERT_EQ(float_to_half(value), half);
    }
  }
  EXPECT_EQ(half_to_float(0x3C00), 1.0F);
  EXPECT_EQ(half_to_float(0xC000), -2.0F);
  EXPECT_EQ(half_to_float(0x0001), 0x1p-24F);
  EXPECT_EQ(half_to_float(0x7C00), kInfinity);
}

TEST(Ops, GatherRowsCopiesBytes) {
  std::mt19937 random(7);
  ThreadPool pool(2);
  for (const DType type : kTypes) {
    TestMatrix in = TestMatrix::random(type, 9, 130, random);
    const std::vector<std::int32_t> rows = {8, 0, 0, 5};
    TestMatrix out(type, 4, 130);
    gather_rows(out.tensor(), in.tensor(), rows, pool);
    EXPECT_TRUE(out.margins_intact());
    for (std::int64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(out.row_bytes(i), in.row_bytes(rows[static_cast<std::size_t>(i)]));
    }
  }
}

TEST(Ops, RefuseShapesThatDoNotFitAndWriteNothing) {
  ThreadPool pool(1);
  const Isa isa = detect_isa();
  TestMatrix out(DType::f32, 2, 8);
  TestMatrix in(DType::f32, 2, 8);
  TestMatrix wide(DType::f32, 2, 16);
  const TestMatrix w(DType::bf16, 1, 8);
  const Weight weight = weight_of({w.host()});
  const std::vector<std::int32_t> tokens = {0, 0};
  const std::vector<std::int32_t> past = {0, 1};
  const std::vector<std::int32_t> negative = {-1, 0};
  const auto refuses = [&](const auto& call) {
    EXPECT_THROW(call(), std::invalid_argument);
    EXPECT_TRUE(out.untouched());
  };
  refuses([&] { embed(out.tensor(), weight, past, pool, isa); });
  refuses([&] { embed(out.tensor(), weight, negative, pool, isa); });
  refuses([&] { embed(out.tensor().head(1), weight, tokens, pool, isa); });
  refuses([&] { embed(wide.tensor(), weight, tokens, pool, isa); });
  refuses([&] { embed(out.tensor(), Weight{}, tokens, pool, isa); });
  refuses([&] { rms_norm(out.tensor(), wide.tensor(), weight, 1e-5F, pool, isa); });
  refuses([&] { rms_norm(out.tensor(), in.tensor().head(1), weight, 1e-5F, pool, isa); });
  Weight two_rows = weight;
  two_rows.rows = 2;
  refuses([&] { rms_norm(out.tensor(), in.tensor(), two_rows, 1e-5F, pool, isa); });
  Tensor half = out.tensor();
  half.dtype = DType::f16;
  refuses([&] { rms_norm(half, in.tensor(), weight, 1e-5F, pool, isa); });
  refuses([&] { silu_mul(out.tensor(), in.tensor(), pool, isa); });
  refuses([&] { silu_mul(half, wide.tensor(), pool, isa); });
  const std::vector<std::int32_t> rows = {0, 2};
  refuses([&] { gather_rows(out.tensor(), in.tensor(), rows, pool); });
  refuses([&] { gather_rows(out.tensor(), in.tensor(), negative, pool); });
  refuses([&] { gather_rows(out.tensor().head(1), in.tensor(), tokens, pool); });
  refuses([&] { gather_rows(half, in.tensor(), tokens, pool); });
}

}  // namespace
}  // namespace mobius
