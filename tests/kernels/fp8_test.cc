#include "kernels/fp8.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/oracle/ops.h"

namespace mobius {
namespace {

/// By the format's definition, in double.
double defined_value(int code) {
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 7 - 3);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

bool is_nan_code(int code) {
  return (code & 0x7F) == 0x7F;
}

TEST(Fp8, EveryCodeHasItsValueAndComesBack) {
  for (int code = 0; code < 256; ++code) {
    if (is_nan_code(code)) continue;
    const float value = from_e4m3(static_cast<std::uint8_t>(code));
    EXPECT_EQ(value, defined_value(code)) << code;
    EXPECT_EQ(std::signbit(value), code >= 0x80) << code;
    EXPECT_EQ(to_e4m3(value), code) << code;
    EXPECT_EQ(from_bf16(to_bf16(value)), value) << code;
  }
  EXPECT_EQ(from_e4m3(0x7E), kMostE4m3);
}

TEST(Fp8, RoundsToTheNearestTiesToEven) {
  for (int code = 0; code < 0x7E; ++code) {
    const float low = from_e4m3(static_cast<std::uint8_t>(code));
    const float high = from_e4m3(static_cast<std::uint8_t>(code + 1));
    const float middle = (low + high) / 2;  // exact
    const int even = code % 2 == 0 ? code : code + 1;
    EXPECT_EQ(to_e4m3(middle), even) << code;
    EXPECT_EQ(to_e4m3(-middle), even | 0x80) << code;
    EXPECT_EQ(to_e4m3(std::nextafter(middle, 0.0F)), code) << code;
    EXPECT_EQ(to_e4m3(std::nextafter(middle, 1e9F)), code + 1) << code;
  }
}

TEST(Fp8, IsWhatTheOracleRoundsTo) {
  std::mt19937 random(3);
  for (int i = 0; i < 200'000; ++i) {
    const int exponent = static_cast<int>(random() % 40) - 28;
    const float value = std::ldexp(static_cast<float>(random() % 20'000) / 1e4F - 1.0F, exponent);
    ASSERT_EQ(from_e4m3(to_e4m3(value)), round_to(DType::e4m3, value)) << value;
  }
}

TEST(Fp8, SaturatesAndKeepsZeros) {
  for (const float large : {449.0F, 480.0F, 1e9F, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(to_e4m3(large), 0x7E);
    EXPECT_EQ(to_e4m3(-large), 0xFE);
  }
  EXPECT_EQ(to_e4m3(0.0F), 0);
  EXPECT_EQ(to_e4m3(-0.0F), 0x80);
  EXPECT_EQ(to_e4m3(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(to_e4m3(0x1p-10F), 0);  // half the least value: to even
  EXPECT_EQ(to_e4m3(0x1.8p-10F), 1);
}

TEST(Fp8, ScalesBringTheLargestIntoTheUpperHalf) {
  std::mt19937 random(5);
  for (int i = 0; i < 10'000; ++i) {
    const float largest = std::ldexp(1.0F + static_cast<float>(random() % 1000) / 1000.0F,
                                     static_cast<int>(random() % 100) - 50);
    const float scaled = largest * power_of_two(-fp8_exponent(largest));
    ASSERT_GT(scaled, kMostE4m3 / 2) << largest;
    ASSERT_LE(scaled, kMostE4m3) << largest;
  }
  EXPECT_EQ(fp8_exponent(448.0F), 0);
  EXPECT_EQ(fp8_exponent(std::nextafter(448.0F, 1e9F)), 1);
  EXPECT_EQ(fp8_exponent(224.0F), -1);
  EXPECT_EQ(fp8_exponent(0.0F), 0);
  EXPECT_EQ(fp8_exponent(std::numeric_limits<float>::denorm_min()), -kMostFp8Exponent);
  EXPECT_EQ(fp8_exponent(std::numeric_limits<float>::max()), kMostFp8Exponent);
  for (int exponent = -kMostFp8Exponent; exponent <= kMostFp8Exponent; ++exponent) {
    ASSERT_EQ(power_of_two(exponent), std::ldexp(1.0F, exponent));
  }
}

TEST(Fp8, ScaleBytesOfKvVectors) {
  EXPECT_EQ(kv_scale_byte(0.0F), 127);
  EXPECT_EQ(kv_scale_byte(448.0F), 127);
  EXPECT_EQ(kv_scale_byte(449.0F), 128);
  EXPECT_EQ(kv_scale_byte(std::numeric_limits<float>::max()), 127 + kMostFp8Exponent);
  EXPECT_EQ(kv_scale_byte(std::numeric_limits<float>::denorm_min()), 127 - kMostFp8Exponent);
  for (int exponent = -kMostFp8Exponent; exponent <= kMostFp8Exponent; ++exponent) {
    const auto byte = static_cast<std::uint8_t>(127 + exponent);
    ASSERT_EQ(kv_scale(byte), std::ldexp(1.0F, exponent));
    ASSERT_EQ(kv_code(std::ldexp(-448.0F, exponent), byte), 0xFE);
  }
  // What is not finite becomes NaN: code 0 times infinity.
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    EXPECT_EQ(kv_scale_byte(bad), 255);
    EXPECT_EQ(kv_code(bad, 255), 0);
  }
  EXPECT_EQ(kv_code(1.0F, 255), 0);
  EXPECT_TRUE(std::isnan(from_e4m3(0) * kv_scale(255)));
}

TEST(Fp8, ErrorOfNormalWeights) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0F, 0.02F);
  double exact_scale = 0;
  double power_scale = 0;
  double norm = 0;
  std::vector<float> row(4096);
  for (int i = 0; i < 100; ++i) {
    float largest = 0;
    for (float& value : row) {
      value = normal(random);
      largest = std::max(largest, std::fabs(value));
    }
    const auto add = [&](double& sum, float scale) {
      for (const float value : row) {
        const double error = double{from_e4m3(to_e4m3(value / scale))} * scale - value;
        sum += error * error;
      }
    };
    add(power_scale, power_of_two(fp8_exponent(largest)));
    add(exact_scale, largest / kMostE4m3);
    for (const float value : row) norm += double{value} * value;
  }
  power_scale = std::sqrt(power_scale / norm);
  exact_scale = std::sqrt(exact_scale / norm);
  std::printf("relative error: %.3f %% with powers of two, %.3f %% with scales to 448\n",
              100 * power_scale, 100 * exact_scale);
  EXPECT_LT(power_scale, 0.0275);
  EXPECT_LT(power_scale, 1.02 * exact_scale);
}

}  // namespace
}  // namespace mobius
