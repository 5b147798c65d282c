// The determinism that kernels/backend.h promises, bit by bit.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "tests/kernels/attention_fixture.h"
#include "tests/kernels/isas.h"

namespace mobius {
namespace {

struct Setting {
  AttentionSizes sizes;
  AttentionPolicy policy;
  std::int32_t tokens;
};

std::vector<Setting> settings() {
  return {
      {{4, 1, 64, 128, 0, DType::bf16}, AttentionPolicy::full(), 300},
      {{4, 1, 64, 16, 16, DType::bf16}, AttentionPolicy::moba(16, 4), 300},
      {{8, 2, 64, 128, 128, DType::bf16}, AttentionPolicy::moba(128, 3), 700},
      {{2, 2, 128, 48, 0, DType::bf16}, AttentionPolicy::moba(96, 3), 500},
      {{6, 2, 32, 32, 64, DType::f32}, AttentionPolicy::moba(64, 2), 333},
      {{3, 1, 80, 160, 0, DType::f32}, AttentionPolicy::full(), 333},
      {{4, 1, 64, 16, 16, DType::bf16, true}, AttentionPolicy::moba(16, 4), 300},
      {{8, 2, 128, 128, 0, DType::bf16, true}, AttentionPolicy::full(), 700},
      {{6, 2, 32, 32, 64, DType::f32, true}, AttentionPolicy::moba(64, 2), 333},
  };
}

class AttentionChunking : public testing::TestWithParam<Isa> {};

INSTANTIATE_TEST_SUITE_P(Isas, AttentionChunking, every_isa(), isa_name);

struct Result {
  std::vector<std::byte> q, out;
  std::vector<float> keys;
  friend bool operator==(const Result&, const Result&) = default;
};

Result run(const Setting& setting, Isa isa, std::int32_t chunk, int threads) {
  AttentionFixture fixture(setting.sizes, 64, threads, isa);
  fixture.poison_free_pages();
  TestSequence sequence = fixture.make_sequence(setting.tokens, setting.policy, 21);
  fixture.run(sequence, chunk);
  const OracleSequence cache = fixture.gather(sequence);
  return {sequence.q, sequence.out, {cache.keys.begin(), cache.keys.end()}};
}

TEST_P(AttentionChunking, AnyCutGivesTheSameBits) {
  for (const Setting& setting : settings()) {
    const Result whole = run(setting, GetParam(), setting.tokens, 1);
    for (const std::int32_t chunk : {1, 7, 64, 129}) {
      EXPECT_TRUE(run(setting, GetParam(), chunk, 1) == whole)
          << "chunk " << chunk << " page " << setting.sizes.page_tokens;
    }
  }
}

TEST_P(AttentionChunking, AnyNumberOfThreadsGivesTheSameBits) {
  for (const Setting& setting : settings()) {
    const Result whole = run(setting, GetParam(), setting.tokens, 1);
    for (const int threads : {2, 3, 8}) {
      EXPECT_TRUE(run(setting, GetParam(), setting.tokens, threads) == whole) << threads;
      EXPECT_TRUE(run(setting, GetParam(), 100, threads) == whole) << threads;
    }
  }
}

TEST_P(AttentionChunking, SpansMergeTheSameWayForAnyCut) {
  const Setting setting{{2, 1, 32, 128, 0, DType::bf16}, AttentionPolicy::moba(256, 30), 8500};
  const auto tail = [&](std::int32_t head_chunk, std::int32_t tail_chunk, int threads) {
    AttentionFixture fixture(setting.sizes, 70, threads, GetParam());
    TestSequence sequence = fixture.make_sequence(setting.tokens, setting.policy, 22);
    fixture.append(sequence, 4000);
    const std::int32_t chunks[] = {head_chunk, tail_chunk};
    for (const std::int32_t chunk : chunks) {
      const std::int32_t end = chunk == head_chunk ? 8100 : setting.tokens;
      while (sequence.done < end) {
        const TestSlice slice{&sequence, std::min(chunk, end - sequence.done)};
        fixture.step(std::span(&slice, 1));
      }
    }
    return sequence.out;
  };
  const std::vector<std::byte> whole = tail(4100, 400, 1);
  EXPECT_TRUE(tail(1000, 3, 1) == whole);
  EXPECT_TRUE(tail(300, 77, 2) == whole);
}

TEST_P(AttentionChunking, ThreadsThatShareOneQuerysSpansGiveTheSameBits) {
  // One or two decode rows of one KV head are fewer groups than any pool of threads has threads.
  struct Case {
    AttentionPolicy policy;
    std::int32_t page;
  };
  for (const Case& c :
       {Case{AttentionPolicy::full(), 128}, Case{AttentionPolicy::moba(128, 3), 128},
        Case{AttentionPolicy::moba(6144, 2), 128}, Case{AttentionPolicy::moba(16, 70), 16}}) {
    std::vector<std::byte> expected;
    for (const int threads : {1, 2, 8}) {
      AttentionFixture fixture({4, 1, 16, c.page, 0, DType::bf16}, 13500 / c.page + 2, threads,
                               GetParam());
      fixture.poison_free_pages();
      TestSequence sequence = fixture.make_sequence(9000, c.policy, 23);
      TestSequence other = fixture.make_sequence(4200, c.policy, 24);
      fixture.append(sequence, 8999);
      fixture.append(other, 4199);
      fixture.step(std::vector<TestSlice>{{&other, 1}, {&sequence, 1}});
      std::vector<std::byte> results = sequence.out;
      results.insert(results.end(), other.out.begin(), other.out.end());
      if (expected.empty()) expected = results;
      EXPECT_TRUE(results == expected) << threads << " threads, block " << c.policy.block;
    }
  }
}

TEST_P(AttentionChunking, CompanyInTheStepChangesNothing) {
  const AttentionSizes sizes{8, 2, 64, 32, 64, DType::bf16};
  const AttentionPolicy policies[] = {AttentionPolicy::moba(64, 3), AttentionPolicy::full(),
                                      AttentionPolicy::moba(32, 5), AttentionPolicy::moba(96, 1)};
  const std::int32_t tokens[] = {300, 170, 257, 64};
  std::vector<TestSequence> alone;
  std::vector<TestSequence> together;
  AttentionFixture fixture(sizes, 200, 2, GetParam());
  fixture.poison_free_pages();
  for (std::size_t i = 0; i < 4; ++i) {
    alone.push_back(fixture.make_sequence(tokens[i], policies[i], 30 + i));
    fixture.run(alone.back(), tokens[i]);
    together.push_back(fixture.make_sequence(tokens[i], policies[i], 30 + i));
  }
  // Continuous batching: chunks of some beside single tokens of others.
  std::mt19937 random(5);
  for (;;) {
    std::vector<TestSlice> slices;
    for (TestSequence& sequence : together) {
      const auto wanted =
          static_cast<std::int32_t>(random() % 3 == 0 ? random() % 90 : random() % 3);
      const std::int32_t rows = std::min(wanted, sequence.tokens - sequence.done);
      if (rows > 0) slices.push_back({&sequence, rows});
    }
    if (!slices.empty()) fixture.step(slices);
    bool done = true;
    for (const TestSequence& sequence : together) done &= sequence.done == sequence.tokens;
    if (done) break;
  }
  for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(alone[i].out == together[i].out) << i;
}

TEST_P(AttentionChunking, SharedPrefixPagesGiveTheSameBits) {
  const AttentionSizes sizes{4, 1, 64, 32, 64, DType::bf16};
  AttentionFixture fixture(sizes, 64, 2, GetParam());
  TestSequence first = fixture.make_sequence(400, AttentionPolicy::moba(64, 3), 40);
  fixture.run(first, 400);
  // The second has the first 192 tokens in common: it takes their pages, not their work.
  TestSequence second = fixture.make_sequence(400, AttentionPolicy::moba(64, 3), 40);
  std::copy_n(first.pages.begin(), 192 / 32, second.pages.begin());
  second.done = 192;
  fixture.run(second, 50);
  const std::size_t skip = std::size_t{192} * 4 * 64 * 2;
  EXPECT_TRUE(std::equal(first.out.begin() + skip, first.out.end(), second.out.begin() + skip));
}

TEST_P(AttentionChunking, ReusedPagesGiveTheSameBits) {
  const AttentionSizes sizes{4, 1, 64, 32, 64, DType::bf16};
  AttentionFixture fixture(sizes, 10, 1, GetParam());
  TestSequence fresh = fixture.make_sequence(290, AttentionPolicy::moba(64, 2), 50);
  fixture.run(fresh, 64);
  fixture.free_pages(fresh);
  fixture.poison_free_pages();
  TestSequence again = fixture.make_sequence(290, AttentionPolicy::moba(64, 2), 50);
  fixture.run(again, 64);
  EXPECT_TRUE(fresh.out == again.out);
  EXPECT_NE(fresh.pages, again.pages);
}

}  // namespace
}  // namespace mobius
