#include "kernels/cuda/decode_runs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <tuple>
#include <vector>

namespace mobius {
namespace {

constexpr std::int32_t kBlocks = 132;

std::vector<DecodeRow> rows_of(const std::vector<std::int32_t>& lengths) {
  std::vector<DecodeRow> rows;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const auto index = static_cast<std::int32_t>(i);
    rows.push_back({1000 + index, 2 * index, lengths[i] - 1, index % 3});
  }
  return rows;
}

/// Every part once, in runs whose rows, parts and counts agree, within what the step has room for.
void expect_whole(const std::vector<DecodeRow>& rows, std::int32_t kv_heads, std::int32_t blocks,
                  const DecodePlan& plan, std::int32_t unit = kDecodeUnit) {
  ASSERT_EQ(plan.block_runs.size(), static_cast<std::size_t>(blocks) + 1);
  EXPECT_EQ(plan.block_runs.front(), 0);
  EXPECT_EQ(plan.block_runs.back(), static_cast<std::int32_t>(plan.runs.size()));
  EXPECT_TRUE(std::is_sorted(plan.block_runs.begin(), plan.block_runs.end()));
  EXPECT_LE(static_cast<std::int32_t>(plan.runs.size()),
            most_decode_runs(static_cast<std::int32_t>(rows.size()), kv_heads, blocks));
  std::map<std::tuple<std::int32_t, std::int32_t>, std::vector<DecodeRun>> of_heads;
  for (const DecodeRun& run : plan.runs) of_heads[{run.slice, run.kv_head}].push_back(run);
  ASSERT_EQ(of_heads.size(), rows.size() * static_cast<std::size_t>(kv_heads));
  for (const DecodeRow& row : rows) {
    const std::int32_t keys = row.position + 1;
    for (std::int32_t kv_head = 0; kv_head < kv_heads; ++kv_head) {
      std::vector<DecodeRun>& runs = of_heads[{row.slice, kv_head}];
      std::sort(runs.begin(), runs.end(),
                [](const DecodeRun& a, const DecodeRun& b) { return a.first < b.first; });
      std::int32_t next = 0;
      for (const DecodeRun& run : runs) {
        EXPECT_EQ(run.row, row.row);
        EXPECT_EQ(run.position, row.position);
        EXPECT_EQ(run.full_from, row.full_from);
        EXPECT_EQ(run.part_keys, decode_part_keys(keys, kv_heads, unit));
        EXPECT_EQ(run.part_keys % unit, 0);
        EXPECT_EQ(run.first, next);
        EXPECT_GT(run.end, run.first);
        EXPECT_EQ(run.prefix, runs.front().end);
        EXPECT_EQ(run.runs, runs.size());
        next = run.end;
      }
      EXPECT_EQ(next, decode_parts(keys, kv_heads, unit));
    }
  }
}

/// The keys that the busiest block reads, as a multiple of an even share.
double imbalance(const DecodePlan& plan) {
  std::int64_t all = 0;
  std::int64_t most = 0;
  for (std::size_t b = 0; b + 1 < plan.block_runs.size(); ++b) {
    std::int64_t keys = 0;
    for (std::int32_t r = plan.block_runs[b]; r < plan.block_runs[b + 1]; ++r) {
      const DecodeRun& run = plan.runs[static_cast<std::size_t>(r)];
      keys += std::min(run.end * run.part_keys, run.position + 1) - run.first * run.part_keys;
    }
    all += keys;
    most = std::max(most, keys);
  }
  const double share = static_cast<double>(all) / static_cast<double>(plan.block_runs.size() - 1);
  return static_cast<double>(most) / share;
}

TEST(DecodeRuns, PartsCoverARowAndAreNotMoreThanTheWorkspaceHolds) {
  for (const std::int32_t kv_heads : {1, 2, 3, 4, 8, 16, 32, 132, 200}) {
    for (std::int32_t keys = 1; keys < (1 << 21); keys += 1 + keys / 50) {
      for (const std::int32_t unit : {decode_unit(false), decode_unit(true)}) {
        const std::int32_t length = decode_part_keys(keys, kv_heads, unit);
        const std::int32_t count = decode_parts(keys, kv_heads, unit);
        EXPECT_EQ(length % unit, 0);
        EXPECT_GE(count, 1);
        EXPECT_LE(count, most_decode_parts(kv_heads));
        EXPECT_LE(count, kMostDecodeParts);
        EXPECT_LT((count - 1) * length, keys);
        EXPECT_GE(std::int64_t{count} * length, keys);
      }
    }
  }
}

TEST(DecodeRuns, NoRowsAreNoRuns) {
  const DecodePlan plan = plan_decode({}, 8, kBlocks);
  EXPECT_TRUE(plan.runs.empty());
  EXPECT_EQ(plan.block_runs, std::vector<std::int32_t>(kBlocks + 1, 0));
}

TEST(DecodeRuns, ASingleRowIsSpreadOverAllBlocks) {
  for (const std::int32_t keys : {1, 64, 1000, 1024, 65536}) {
    const std::vector<DecodeRow> rows = rows_of({keys});
    const DecodePlan plan = plan_decode(rows, 8, kBlocks);
    expect_whole(rows, 8, kBlocks, plan);
    for (std::size_t b = 0; b < kBlocks; ++b) {
      EXPECT_LE(plan.block_runs[b + 1] - plan.block_runs[b], 1);
    }
    for (const DecodeRun& run : plan.runs) EXPECT_EQ(run.end, run.first + 1);
  }
}

TEST(DecodeRuns, BatchesAreWholeAndEven) {
  for (const std::int32_t streams : {4, 10, 16, 33, 64, 256}) {
    for (const std::int32_t keys : {1024, 8192, 65536}) {
      const std::vector<DecodeRow> rows =
          rows_of(std::vector<std::int32_t>(static_cast<std::size_t>(streams), keys));
      const DecodePlan plan = plan_decode(rows, 8, kBlocks);
      expect_whole(rows, 8, kBlocks, plan);
      EXPECT_LT(imbalance(plan), 1.05) << streams << " of " << keys;
    }
  }
}

TEST(DecodeRuns, MostRowsOfALargeBatchAreInOnePiece) {
  const std::vector<DecodeRow> rows = rows_of(std::vector<std::int32_t>(64, 1024));
  const DecodePlan plan = plan_decode(rows, 8, kBlocks);
  const auto pieces = std::count_if(plan.runs.begin(), plan.runs.end(),
                                    [](const DecodeRun& run) { return run.runs > 1; });
  EXPECT_LE(pieces, 2 * kBlocks);
}

TEST(DecodeRuns, ALongRowAmongShortOnesIsSpreadOverAllBlocks) {
  for (const std::int32_t others : {1, 16, 63}) {
    std::vector<std::int32_t> lengths(static_cast<std::size_t>(others), 1024);
    lengths.insert(lengths.begin() + others / 2, 65536);
    const std::vector<DecodeRow> rows = rows_of(lengths);
    const DecodePlan plan = plan_decode(rows, 8, kBlocks);
    expect_whole(rows, 8, kBlocks, plan);
    EXPECT_LT(imbalance(plan), 1.1) << others;
  }
}

TEST(DecodeRuns, AnyLengthsAnyHeadsAnyBlocksAreWhole) {
  std::mt19937 random(5);
  for (int i = 0; i < 300; ++i) {
    const std::int32_t most = 1 << (random() % 18);
    std::vector<std::int32_t> lengths(1 + random() % 90);
    for (std::int32_t& length : lengths) {
      length = 1 + static_cast<std::int32_t>(random() % static_cast<std::uint32_t>(most));
    }
    const auto kv_heads = static_cast<std::int32_t>(1 + random() % 9);
    const auto blocks =
        static_cast<std::int32_t>(i % 4 == 0 ? 1 + random() % 8 : 1 + random() % 160);
    const std::vector<DecodeRow> rows = rows_of(lengths);
    for (const bool fp8 : {false, true}) {
      const std::int32_t unit = decode_unit(fp8);
      expect_whole(rows, kv_heads, blocks, plan_decode(rows, kv_heads, blocks, unit), unit);
    }
  }
}

}  // namespace
}  // namespace mobius
