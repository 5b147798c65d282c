#include "kernels/cpu/kv_cache.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "kernels/oracle/attention.h"
#include "kernels/oracle/ops.h"
#include "tests/kernels/attention_fixture.h"

namespace mobius {
namespace {

AttentionSizes small(DType dtype, std::int32_t centroid_block = 0) {
  return {4, 2, 32, 16, centroid_block, dtype};
}

class KvCache : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, KvCache, testing::Values(DType::bf16, DType::f32),
                         [](const testing::TestParamInfo<DType>& dtype) {
                           return std::string(name_of(dtype.param));
                         });

TEST_P(KvCache, RopeAppendRotatesAndStoresRounded) {
  AttentionFixture fixture(small(GetParam()), 16, 2, detect_isa());
  TestSequence sequence = fixture.make_sequence(150, AttentionPolicy::full(), 1);
  fixture.run(sequence, 60);
  const OracleSequence cache = fixture.gather(sequence);
  const std::vector<float> q = fixture.widen(sequence.q);
  // fp32's error before rounding (inputs are below 6), and half an ulp of the stored type.
  const auto tolerance = [](double x) {
    return 2e-6 + (GetParam() == DType::f32 ? 0.0 : std::abs(x) / 256);
  };
  for (std::size_t t = 0; t < 150; ++t) {
    const std::span<const float> row = std::span(sequence.qkv).subspan(t * 256, 256);
    for (std::size_t head = 0; head < 8; ++head) {
      const std::span<const float> in = row.subspan(head * 32, 32);
      const std::vector<double> rotated =
          oracle_rope(in, static_cast<std::int64_t>(t), fixture.inverse_frequencies);
      for (std::size_t d = 0; d < 32; ++d) {
        if (head < 4) {
          ASSERT_NEAR(double{q[t * 128 + head * 32 + d]}, rotated[d], tolerance(rotated[d]));
        } else if (head < 6) {
          ASSERT_NEAR(double{cache.keys[t * 64 + (head - 4) * 32 + d]}, rotated[d],
                      tolerance(rotated[d]));
        } else {
          ASSERT_EQ(cache.values[t * 64 + (head - 6) * 32 + d], round_to(GetParam(), in[d]));
        }
      }
    }
  }
}

TEST_P(KvCache, FarPositionsRotateAccurately) {
  AttentionFixture fixture(small(GetParam()), 4, 1, detect_isa());
  constexpr std::int32_t kPosition = 1000003;  // slot 3 of its page
  const std::vector<PageId> pages(kPosition / 16 + 1, 2);
  const SequenceSlice slice{0, 1, kPosition, pages, AttentionPolicy::full(), 0};
  std::vector<float> qkv(256);
  for (std::size_t i = 0; i < qkv.size(); ++i) qkv[i] = static_cast<float>(i % 7) - 3.0F;
  std::vector<std::byte> q(128 * fixture.element());
  rope_append({q.data(), GetParam(), 1, 128}, {qkv.data(), DType::f32, 1, 256}, fixture.pool, 0,
              fixture.inverse_frequencies, {{}, std::span(&slice, 1), {}}, fixture.threads);
  const std::vector<double> rotated =
      oracle_rope(std::span(qkv).first(32), kPosition, fixture.inverse_frequencies);
  const std::vector<float> wide = fixture.widen(q);
  const double ulp = GetParam() == DType::f32 ? 1e-6 : 1.0 / 256;
  for (std::size_t d = 0; d < 32; ++d) ASSERT_NEAR(double{wide[d]}, rotated[d], 4 * ulp) << d;
}

TEST_P(KvCache, CentroidsAreTheOraclesToTheBit) {
  for (const std::int32_t stored : {0, 48}) {
    for (const std::int32_t chunk : {1, 7, 64, 300}) {
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

TEST_P(KvCache, LayersAndHeadsDoNotTouchEachOther) {
  AttentionFixture fixture(small(GetParam(), 16), 4, 1, detect_isa());
  fixture.poison_free_pages();
  const KvShape& shape = fixture.pool.shape();
  std::vector<float> before(32);
  std::memcpy(before.data(), fixture.pool.sum(0, 1, 1), 32 * sizeof(float));
  TestSequence sequence = fixture.make_sequence(64, AttentionPolicy::full(), 3);
  fixture.run(sequence, 64);  // all pages of layer 1
  for (PageId page = 0; page < shape.num_pages; ++page) {
    for (std::int32_t g = 0; g < 2; ++g) {
      EXPECT_EQ(std::memcmp(before.data(), fixture.pool.sum(0, page, g), 32 * sizeof(float)), 0);
      EXPECT_EQ(*fixture.pool.keys(0, page, g), 0xffffffffU);
      EXPECT_EQ(*fixture.pool.values(0, page, g), 0xffffffffU);
    }
  }
}

TEST(KvCacheShape, BytesCountEverything) {
  const KvShape shape{3, 10, 16, 2, 64, DType::bf16, 32};
  const std::size_t tiles = 60;
  EXPECT_EQ(kv_bytes(shape), tiles * (2 * 16 * 64 * 2 + 64 * 4 + 64 * 2));
}

TEST(KvCacheShape, ThatCannotWorkIsRefusedInOneLine) {
  const KvShape good{1, 1, 16, 1, 16, DType::bf16, 0};
  EXPECT_NO_THROW(CpuKvPool{good});
  const auto refused = [&](auto change, const char* says) {
    KvShape shape = good;
    change(shape);
    try {
      kv_bytes(shape);
      ADD_FAILURE() << says;
    } catch (const std::runtime_error& error) {
      EXPECT_NE(std::string(error.what()).find(says), std::string::npos) << error.what();
    }
    EXPECT_THROW(CpuKvPool{shape}, std::runtime_error);
  };
  refused([](KvShape& s) { s.dtype = DType::f16; }, "f16");
  refused([](KvShape& s) { s.head_dim = 24; }, "head_dim is 24");
  refused([](KvShape& s) { s.head_dim = 272; }, "head_dim is 272");
  refused([](KvShape& s) { s.page_tokens = 8; }, "page_tokens is 8");
  refused([](KvShape& s) { s.centroid_block = 24; }, "centroid_block is 24");
  refused([](KvShape& s) { s.num_pages = 0; }, "at least one");
}

TEST(RopeAppendArguments, ThatDoNotFitThrowBeforeAnythingIsWritten) {
  AttentionFixture fixture(small(DType::bf16), 4, 1, detect_isa());
  fixture.poison_free_pages();
  std::vector<float> qkv(10240, 1.0F);
  std::vector<std::byte> q(10240, std::byte{0x5a});
  const std::vector<std::byte> untouched = q;
  const std::vector<PageId> pages = {0, 1, 2};
  const std::vector<PageId> outside = {0, -1, 2};
  const Tensor good_q{q.data(), DType::bf16, 40, 128};
  const Tensor good_qkv{qkv.data(), DType::f32, 40, 256};
  const SequenceSlice good{0, 40, 0, pages, AttentionPolicy::full(), 0};
  const auto throws = [&](Tensor q_out, Tensor in, std::int32_t layer, std::size_t frequencies,
                          const SequenceSlice& slice) {
    EXPECT_THROW(rope_append(q_out, in, fixture.pool, layer,
                             std::span(fixture.inverse_frequencies).first(frequencies),
                             {{}, std::span(&slice, 1), {}}, fixture.threads),
                 std::invalid_argument);
  };
  const auto with = [](auto thing, auto change) {
    change(thing);
    return thing;
  };
  throws(good_q, good_qkv, 2, 16, good);
  throws(good_q, good_qkv, 0, 15, good);
  throws(with(good_q, [](Tensor& t) { t.dtype = DType::f32; }), good_qkv, 0, 16, good);
  throws(good_q, with(good_qkv, [](Tensor& t) { t.dtype = DType::bf16; }), 0, 16, good);
  throws(good_q, with(good_qkv, [](Tensor& t) { t.cols = 192; }), 0, 16, good);
  throws(good_q, with(good_qkv, [](Tensor& t) { t.rows = 20; }), 0, 16, good);
  throws(good_q, good_qkv, 0, 16, with(good, [](SequenceSlice& s) { s.num_rows = 41; }));
  throws(good_q, good_qkv, 0, 16, with(good, [](SequenceSlice& s) { s.first_position = 9; }));
  throws(good_q, good_qkv, 0, 16, with(good, [&](SequenceSlice& s) { s.pages = outside; }));
  EXPECT_TRUE(q == untouched);
  EXPECT_EQ(*fixture.pool.keys(0, 0, 0), 0xffffffffU);
}

}  // namespace
}  // namespace mobius
