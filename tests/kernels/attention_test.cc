#include "kernels/cpu/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/oracle/attention.h"
#include "tests/kernels/attention_fixture.h"

namespace mobius {
namespace {

/// How far the CPU may be from the oracle, as the root mean square over a head of a row's error
/// against that of the values it weighs. f32: some ulps of sums. bf16: probabilities and the output
/// are rounded to 8 bits.
double allowed_error(DType dtype) {
  return dtype == DType::f32 ? 2e-6 : 4e-3;
}

/// Scores closer than this cannot be told apart in fp32: each of the two is a sum of d products
/// whose absolute values add up to at most |q||c|, here below d.
double indistinguishable(const AttentionSizes& sizes) {
  return 2.0 * std::ldexp(sizes.head_dim, -24) * sizes.head_dim;
}

struct Checked {
  std::int64_t selections = 0;
  std::int64_t excused = 0;  ///< the oracle chose otherwise where scores are indistinguishable
};

/// Compares rows [first, first + rows) of a finished sequence with the oracle.
Checked check_rows(AttentionFixture& fixture, const TestSequence& sequence, std::int32_t first,
                   std::int32_t rows) {
  const AttentionSizes& sizes = fixture.sizes;
  const OracleSequence cache = fixture.gather(sequence);
  const std::size_t columns = static_cast<std::size_t>(fixture.q_columns());
  const std::vector<float> all_q = fixture.widen(sequence.q);
  const std::span<const float> q = std::span(all_q).subspan(
      static_cast<std::size_t>(first) * columns, static_cast<std::size_t>(rows) * columns);
  const OracleAttention oracle = oracle_attention(cache, sequence.policy, q, sizes.heads, first);
  const std::vector<float> out = fixture.widen(sequence.out);

  std::vector<std::byte> q_rows(
      sequence.q.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(first) * columns *
                                                       fixture.element()),
      sequence.q.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(first + rows) *
                                                       columns * fixture.element()));
  const SequenceSlice slice{0, rows, first, sequence.pages, sequence.policy, 0};
  const auto selected = selected_blocks({q_rows.data(), sizes.dtype, rows, fixture.q_columns()},
                                        fixture.pool, kTestLayer, slice, fixture.isa);

  Checked checked;
  const std::size_t head_dim = static_cast<std::size_t>(sizes.head_dim);
  for (std::size_t i = 0; i < selected.size(); ++i) {
    const std::size_t row =
        static_cast<std::size_t>(first) + i / static_cast<std::size_t>(sizes.heads);
    if (sequence.policy.mode == AttentionMode::moba) {
      ++checked.selections;
      if (selected[i] != oracle.selections[i].blocks) {
        ++checked.excused;
        EXPECT_LT(oracle.selections[i].gap, indistinguishable(sizes))
            << "row " << row << " head " << i % static_cast<std::size_t>(sizes.heads);
        continue;  // attends other blocks, so its output says nothing
      }
    }
    double error = 0.0;
    for (std::size_t d = 0; d < head_dim; ++d) {
      const double x = double{out[static_cast<std::size_t>(first) * columns + i * head_dim + d]};
      error += (x - oracle.out[i * head_dim + d]) * (x - oracle.out[i * head_dim + d]);
    }
    // Values are drawn from N(0, 1).
    const double rms = std::sqrt(error / sizes.head_dim);
    EXPECT_LT(rms, allowed_error(sizes.dtype))
        << "row " << row << " head " << i % static_cast<std::size_t>(sizes.heads);
    if (!(rms < allowed_error(sizes.dtype))) return checked;
  }
  return checked;
}

struct Path {
  Isa isa;
  DType dtype;
  bool fp8 = false;
};

std::vector<Path> all_paths() {
  std::vector<Path> paths;
  for (const Isa isa : supported_isas()) {
    for (const DType dtype : {DType::bf16, DType::f32}) {
      for (const bool fp8 : {false, true}) paths.push_back({isa, dtype, fp8});
    }
  }
  return paths;
}

std::string path_name(const testing::TestParamInfo<Path>& path) {
  return std::string(name_of(path.param.isa)) + "_" + std::string(name_of(path.param.dtype)) +
         (path.param.fp8 ? "_fp8" : "");
}

class AttentionTest : public testing::TestWithParam<Path> {
 protected:
  AttentionSizes sizes(std::int32_t heads, std::int32_t kv_heads, std::int32_t head_dim,
                       std::int32_t page, std::int32_t centroid_block = 0) const {
    return {heads, kv_heads, head_dim, page, centroid_block, GetParam().dtype, GetParam().fp8};
  }
  Isa isa() const { return GetParam().isa; }
};

INSTANTIATE_TEST_SUITE_P(Paths, AttentionTest, testing::ValuesIn(all_paths()), path_name);

TEST_P(AttentionTest, FullAttentionMatchesOracleForAnyShape) {
  struct Case {
    std::int32_t heads, kv_heads, head_dim, page, tokens, chunk;
  };
  const Case cases[] = {
      {4, 1, 64, 128, 257, 100}, {2, 2, 128, 16, 100, 64},  {8, 1, 32, 48, 145, 145},
      {3, 1, 16, 160, 333, 50},  {6, 2, 80, 32, 129, 1},    {5, 5, 48, 64, 65, 13},
      {4, 2, 256, 144, 150, 75}, {28, 4, 64, 256, 300, 90},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE("head_dim " + std::to_string(c.head_dim) + " page " + std::to_string(c.page));
    AttentionFixture fixture(sizes(c.heads, c.kv_heads, c.head_dim, c.page), 32, 2, isa());
    fixture.poison_free_pages();
    TestSequence sequence = fixture.make_sequence(c.tokens, AttentionPolicy::full(), 1);
    fixture.run(sequence, c.chunk);
    check_rows(fixture, sequence, 0, c.tokens);
  }
}

TEST_P(AttentionTest, MobaMatchesOracleForAnyBlockAndTopK) {
  struct Case {
    std::int32_t heads, kv_heads, head_dim, page, block, top_k, tokens, chunk;
  };
  const Case cases[] = {
      {4, 1, 64, 16, 16, 3, 250, 64},   // ends inside a block
      {4, 4, 64, 16, 32, 2, 256, 256},  // ends at a block's end
      {8, 1, 64, 16, 64, 4, 513, 200},  // ends one after
      {4, 1, 128, 32, 32, 16, 700, 333},  {2, 2, 32, 16, 48, 1, 200, 7},
      {8, 2, 64, 128, 128, 5, 1100, 512}, {7, 1, 16, 48, 96, 6, 1000, 1000},
      {2, 1, 80, 32, 64, 12, 1024, 100},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE("block " + std::to_string(c.block) + " top_k " + std::to_string(c.top_k));
    // Half of the cases read stored centroids, half compute them from page sums.
    const std::int32_t stored = c.tokens % 2 == 0 ? c.block : 0;
    AttentionFixture fixture(sizes(c.heads, c.kv_heads, c.head_dim, c.page, stored), 80, 2, isa());
    fixture.poison_free_pages();
    TestSequence sequence =
        fixture.make_sequence(c.tokens, AttentionPolicy::moba(c.block, c.top_k), 2);
    fixture.run(sequence, c.chunk);
    const std::int32_t rows = std::min(c.tokens, 300);
    const Checked checked = check_rows(fixture, sequence, c.tokens - rows, rows);
    EXPECT_EQ(checked.selections, std::int64_t{rows} * c.heads);
    EXPECT_LE(checked.excused, checked.selections / 1000);
  }
}

TEST_P(AttentionTest, LargeBlocksAndLongContextsMatchOracle) {
  struct Case {
    AttentionPolicy policy;
    std::int32_t page, tokens;
  };
  // Past 4,096 keys spans merge; 4,096 / 48 is no whole number of pages.
  const Case cases[] = {
      {AttentionPolicy::full(), 128, 9000},          {AttentionPolicy::full(), 48, 8300},
      {AttentionPolicy::moba(4096, 2), 128, 12300},  {AttentionPolicy::moba(1024, 3), 256, 9216},
      {AttentionPolicy::moba(5120, 2), 1024, 10300}, {AttentionPolicy::moba(512, 8), 128, 8200},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE("block " + std::to_string(c.policy.block) + " tokens " + std::to_string(c.tokens));
    AttentionFixture fixture(sizes(2, 1, 32, c.page, c.policy.block), c.tokens / c.page + 1, 2,
                             isa());
    fixture.poison_free_pages();
    TestSequence sequence = fixture.make_sequence(c.tokens, c.policy, 3);
    fixture.append(sequence, 8190);
    fixture.run(sequence, c.tokens);
    check_rows(fixture, sequence, c.tokens - 10, 10);
    check_rows(fixture, sequence, 8190, 5);
  }
}

TEST_P(AttentionTest, SeveralSequencesInOneStepMatchOracle) {
  AttentionFixture fixture(sizes(4, 2, 64, 16), 100, 2, isa());
  fixture.poison_free_pages();
  std::vector<TestSequence> sequences;
  sequences.push_back(fixture.make_sequence(170, AttentionPolicy::moba(32, 3), 4));
  sequences.push_back(fixture.make_sequence(33, AttentionPolicy::full(), 5));
  sequences.push_back(fixture.make_sequence(300, AttentionPolicy::moba(16, 7), 6));
  sequences.push_back(fixture.make_sequence(1, AttentionPolicy::moba(64, 2), 7));
  // The first two are ahead, so that their last rows are decode rows beside the others' prompts.
  fixture.step(std::vector<TestSlice>{{&sequences[0], 169}, {&sequences[1], 32}});
  fixture.step(std::vector<TestSlice>{
      {&sequences[2], 300}, {&sequences[0], 1}, {&sequences[3], 1}, {&sequences[1], 1}});
  for (const TestSequence& sequence : sequences) {
    check_rows(fixture, sequence, 0, sequence.tokens);
  }
}

TEST_P(AttentionTest, PeakedScoresMatchOracle) {
  AttentionFixture fixture(sizes(4, 1, 64, 128), 8, 1, isa());
  TestSequence sequence = fixture.make_sequence(400, AttentionPolicy::full(), 8);
  // Queries ten times as long: weights span more than fp32's range, most of them vanish.
  for (std::size_t i = 0; i < sequence.qkv.size(); ++i) {
    if (i % 384 < 256) sequence.qkv[i] *= 10.0F;
  }
  fixture.run(sequence, 150);
  const OracleSequence cache = fixture.gather(sequence);
  const OracleAttention oracle =
      oracle_attention(cache, sequence.policy, fixture.widen(sequence.q), 4, 0);
  const std::vector<float> out = fixture.widen(sequence.out);
  // Scores near 100 carry fp32's error of some 1e-5 into the exponent.
  const double tolerance = GetParam().dtype == DType::f32 ? 2e-4 : 3e-2;
  for (std::size_t i = 0; i < out.size(); ++i) {
    ASSERT_NEAR(double{out[i]}, oracle.out[i], tolerance) << i;
  }
}

TEST_P(AttentionTest, EqualScoresGoToTheLowerBlock) {
  AttentionFixture fixture(sizes(2, 1, 16, 16), 40, 1, isa());
  std::fill(fixture.inverse_frequencies.begin(), fixture.inverse_frequencies.end(), 0.0F);
  TestSequence sequence = fixture.make_sequence(16 * 20 + 5, AttentionPolicy::moba(16, 4), 9);
  // One key everywhere but in block 13: without rotation, equal centroids.
  const std::size_t columns = 64;
  for (std::size_t t = 0; t < 16 * 20 + 5; ++t) {
    for (std::size_t d = 0; d < 16; ++d) {
      sequence.qkv[t * columns + d] = 1.0F;
      sequence.qkv[t * columns + 16 + d] = -1.0F;
      sequence.qkv[t * columns + 32 + d] = t / 16 == 13 ? 0.75F : 0.5F;
    }
  }
  fixture.run(sequence, 325);
  const SequenceSlice slice{0, 325, 0, sequence.pages, sequence.policy, 0};
  const auto selected = selected_blocks({sequence.q.data(), GetParam().dtype, 325, 32},
                                        fixture.pool, kTestLayer, slice, isa());
  EXPECT_EQ(selected[648], (std::vector<std::int32_t>{0, 1, 13, 20}));  // q = +1
  EXPECT_EQ(selected[649], (std::vector<std::int32_t>{0, 1, 2, 20}));   // q = -1
  EXPECT_EQ(selected[80], (std::vector<std::int32_t>{0, 1, 2}));
}

TEST_P(AttentionTest, TellsWhichBlocksTheLastRowOfEachSliceAttends) {
  const std::int32_t heads = 4;
  for (const int threads : {1, 3}) {
    AttentionFixture fixture(sizes(heads, 2, 16, 16), 700, threads, isa());
    std::vector<TestSequence> sequences;
    // The first spans several of attention's spans, which threads share where rows are few.
    sequences.push_back(fixture.make_sequence(9002, AttentionPolicy::moba(16, 70), 14));
    sequences.push_back(fixture.make_sequence(210, AttentionPolicy::moba(32, 3), 15));
    sequences.push_back(fixture.make_sequence(210, AttentionPolicy::full(), 16));
    fixture.append(sequences[0], 9000);
    fixture.step(std::vector<TestSlice>{{&sequences[1], 208}, {&sequences[2], 209}});
    fixture.step(std::vector<TestSlice>{{&sequences[0], 1}});
    fixture.step(
        std::vector<TestSlice>{{&sequences[2], 1}, {&sequences[0], 1}, {&sequences[1], 2}});

    for (TestSequence& sequence : sequences) {
      const SequenceSlice slice{0, sequence.tokens, 0, sequence.pages, sequence.policy, 0};
      const auto selected =
          selected_blocks({sequence.q.data(), GetParam().dtype, sequence.tokens, heads * 16},
                          fixture.pool, kTestLayer, slice, isa());
      for (const auto& [position, attended] : sequence.attended) {
        std::vector<std::int32_t> expected;
        for (std::int32_t head = 0; head < heads; ++head) {
          const auto& blocks = selected[static_cast<std::size_t>(position * heads + head)];
          expected.insert(expected.end(), blocks.begin(), blocks.end());
        }
        const std::vector<std::int32_t> untouched(expected.size(), -1);
        static_assert(kTestLayer == 1);
        expected.insert(expected.begin(), untouched.begin(), untouched.end());
        EXPECT_EQ(attended, expected) << position << ", " << threads << " threads";
      }
    }
    EXPECT_EQ(sequences[0].attended.size(), 2);
    EXPECT_EQ(sequences[1].attended.size(), 2);
  }
}

TEST_P(AttentionTest, MobaThatSeesEveryBlockIsFullAttentionToTheBit) {
  const AttentionSizes shape = sizes(4, 1, 64, 128, 128);
  std::vector<std::byte> results[2];
  for (const bool moba : {false, true}) {
    AttentionFixture fixture(shape, 40, 1, isa());
    TestSequence sequence = fixture.make_sequence(
        4700, moba ? AttentionPolicy::moba(128, 37) : AttentionPolicy::full(), 10);
    fixture.append(sequence, 4000);
    fixture.run(sequence, 1000);
    results[moba] = sequence.out;
  }
  EXPECT_TRUE(results[0] == results[1]);
}

TEST_P(AttentionTest, LastLayersUseFullAttention) {
  AttentionFixture fixture(sizes(4, 1, 64, 16), 40, 1, isa());
  TestSequence sequence = fixture.make_sequence(200, AttentionPolicy::moba(16, 2), 11);
  fixture.run(sequence, 200);
  std::vector<std::byte> out(sequence.out.size());
  std::vector<std::byte> workspace(
      64 + attention_workspace_bytes(fixture.pool.shape(), 4, {200, 1, 200}, 1));
  void* start = workspace.data();
  std::size_t space = workspace.size();
  std::align(64, space - 64, start, space);
  std::vector<std::int32_t> attended(2 * 4 * 2, -1);
  for (const std::int32_t last : {1, 0}) {
    const SequenceSlice slice{0, 200, 0, sequence.pages, sequence.policy, last, attended};
    attention({out.data(), GetParam().dtype, 200, 256},
              {sequence.q.data(), GetParam().dtype, 200, 256}, fixture.pool, kTestLayer,
              {{}, std::span(&slice, 1), {}}, {static_cast<std::byte*>(start), space},
              fixture.threads, isa());
    EXPECT_EQ(std::ranges::count(attended, -1), last == 1 ? 16 : 8)
        << "full attention tells nothing";
    if (last == 0) {
      EXPECT_TRUE(out == sequence.out);
    } else {
      TestSequence full = sequence;
      full.out = out;
      full.policy = AttentionPolicy::full();
      check_rows(fixture, full, 0, 200);
    }
  }
}

TEST(AttentionArguments, ThatDoNotFitThrowBeforeAnythingIsWritten) {
  AttentionFixture fixture({4, 2, 32, 16, 0, DType::bf16}, 8, 1, detect_isa());
  TestSequence sequence = fixture.make_sequence(40, AttentionPolicy::full(), 12);
  fixture.run(sequence, 40);
  std::vector<std::byte> out(sequence.out.size(), std::byte{0x5a});
  const std::vector<std::byte> untouched = out;
  const StepLimits limits{40, 1, 40};
  std::vector<std::byte> workspace(64 +
                                   attention_workspace_bytes(fixture.pool.shape(), 4, limits, 1));
  void* start = workspace.data();
  std::size_t space = workspace.size();
  std::align(64, space - 64, start, space);
  const std::span<std::byte> scratch{static_cast<std::byte*>(start), space};

  const Tensor good_out{out.data(), DType::bf16, 40, 128};
  const Tensor good_q{sequence.q.data(), DType::bf16, 40, 128};
  const SequenceSlice good{0, 40, 0, sequence.pages, AttentionPolicy::full(), 0};
  const auto call = [&](Tensor o, Tensor q, std::int32_t layer, const SequenceSlice& slice,
                        std::span<std::byte> memory) {
    attention(o, q, fixture.pool, layer, {{}, std::span(&slice, 1), {}}, memory, fixture.threads,
              fixture.isa);
  };
  const auto with = [](auto thing, auto change) {
    change(thing);
    return thing;
  };
  const auto throws = [&](Tensor o, Tensor q, std::int32_t layer, const SequenceSlice& slice,
                          std::span<std::byte> memory) {
    EXPECT_THROW(call(o, q, layer, slice, memory), std::invalid_argument);
  };
  throws(good_out, good_q, 2, good, scratch);
  throws(good_out, good_q, -1, good, scratch);
  throws(with(good_out, [](Tensor& t) { t.dtype = DType::f32; }), good_q, 0, good, scratch);
  throws(good_out, with(good_q, [](Tensor& t) { t.rows = 39; }), 0, good, scratch);
  const auto odd = [](Tensor& t) { t.cols = 96; };  // 3 heads over 2 KV heads
  throws(with(good_out, odd), with(good_q, odd), 0, good, scratch);
  throws(good_out, good_q, 0, with(good, [](SequenceSlice& s) { s.num_rows = 39; }), scratch);
  throws(good_out, good_q, 0, with(good, [](SequenceSlice& s) { s.first_row = 1; }), scratch);
  throws(good_out, good_q, 0, with(good, [](SequenceSlice& s) { s.first_position = 9; }), scratch);
  throws(good_out, good_q, 0, with(good, [](SequenceSlice& s) { s.first_position = -1; }), scratch);
  const std::vector<PageId> outside = {0, 1, 8};
  throws(good_out, good_q, 0, with(good, [&](SequenceSlice& s) { s.pages = outside; }), scratch);
  for (const AttentionPolicy policy :
       {AttentionPolicy::moba(24, 2), AttentionPolicy::moba(0, 2), AttentionPolicy::moba(16, 0)}) {
    throws(good_out, good_q, 0, with(good, [&](SequenceSlice& s) { s.policy = policy; }), scratch);
  }
  std::vector<std::int32_t> places(2 * 4 * 2 + 1);
  const auto asks = [&](AttentionPolicy policy, std::size_t count) {
    throws(good_out, good_q, 0,
           with(good,
                [&](SequenceSlice& s) {
                  s.policy = policy;
                  s.attended = std::span(places).first(count);
                }),
           scratch);
  };
  asks(AttentionPolicy::moba(16, 2), 17);
  asks(AttentionPolicy::moba(16, 2), 15);
  asks(AttentionPolicy::full(), 16);
  throws(good_out, good_q, 0, good, scratch.first(1024));
  EXPECT_TRUE(out == untouched);
  call(good_out, good_q, kTestLayer, good, scratch);
  EXPECT_TRUE(out == sequence.out);
}

TEST(AttentionArguments, QueriesMayBeOverwrittenByTheResult) {
  AttentionFixture fixture({8, 2, 64, 128, 0, DType::bf16}, 8, 2, detect_isa());
  TestSequence sequence = fixture.make_sequence(500, AttentionPolicy::moba(128, 2), 13);
  fixture.run(sequence, 500);
  std::vector<std::byte> workspace(
      64 + attention_workspace_bytes(fixture.pool.shape(), 8, {500, 1, 500}, 2));
  void* start = workspace.data();
  std::size_t space = workspace.size();
  std::align(64, space - 64, start, space);
  const SequenceSlice slice{0, 500, 0, sequence.pages, sequence.policy, 0};
  const Tensor both{sequence.q.data(), DType::bf16, 500, 512};
  attention(both, both, fixture.pool, kTestLayer, {{}, std::span(&slice, 1), {}},
            {static_cast<std::byte*>(start), space}, fixture.threads, fixture.isa);
  EXPECT_TRUE(sequence.q == sequence.out);
}

}  // namespace
}  // namespace mobius
