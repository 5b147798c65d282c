#include "engine/tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <random>
#include <set>
#include <string>

namespace mobius {
namespace {

using Ids = std::vector<std::int32_t>;

std::array<std::int32_t, 256> bytes_for_themselves() {
  std::array<std::int32_t, 256> out{};
  for (int i = 0; i < 256; ++i) out[i] = i;
  return out;
}

/// The rule as one reads it: merge the pair of lowest rank, leftmost first, until none is left.
Ids by_the_rule(std::string_view piece, const std::vector<BpeMerge>& merges) {
  std::map<std::pair<std::int32_t, std::int32_t>, BpeMerge> table;
  for (const BpeMerge& merge : merges) table[{merge.left, merge.right}] = merge;
  Ids tokens;
  for (const char c : piece) tokens.push_back(static_cast<unsigned char>(c));
  while (true) {
    const BpeMerge* best = nullptr;
    std::size_t best_at = 0;
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      const auto found = table.find({tokens[i], tokens[i + 1]});
      if (found == table.end()) continue;
      if (best == nullptr || found->second.rank < best->rank) {
        best = &found->second;
        best_at = i;
      }
    }
    if (best == nullptr) return tokens;
    tokens[best_at] = best->result;
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(best_at) + 1);
  }
}

/// Random merges over a small alphabet, so that tokens overlap in many ways.
std::vector<BpeMerge> random_merges(std::mt19937& draw, int count) {
  std::vector<std::string> tokens;
  std::vector<std::int32_t> ids;
  for (const char c : std::string("abc")) {
    tokens.emplace_back(1, c);
    ids.push_back(c);
  }
  std::map<std::string, std::int32_t> known;
  std::set<std::pair<std::int32_t, std::int32_t>> pairs;
  std::vector<BpeMerge> merges;
  while (static_cast<int>(merges.size()) < count) {
    const std::size_t left = draw() % tokens.size();
    const std::size_t right = draw() % tokens.size();
    if (!pairs.insert({ids[left], ids[right]}).second) continue;
    const std::string joined = tokens[left] + tokens[right];
    const auto next = static_cast<std::int32_t>(256 + known.size());
    const auto [found, is_new] = known.emplace(joined, next);
    if (is_new) {
      tokens.push_back(joined);
      ids.push_back(next);
    }
    merges.push_back(
        {ids[left], ids[right], static_cast<std::int32_t>(merges.size()), found->second});
  }
  return merges;
}

TEST(Bpe, FollowsTheRuleForShortAndLongPieces) {
  std::mt19937 draw(7);
  for (int round = 0; round < 40; ++round) {
    const std::vector<BpeMerge> merges = random_merges(draw, 5 + round);
    const Bpe bpe(bytes_for_themselves(), merges);
    Bpe::Workspace workspace;
    for (int i = 0; i < 60; ++i) {
      std::string piece(1 + draw() % (i == 0 ? 600 : 120), ' ');
      for (char& c : piece) c = static_cast<char>('a' + draw() % (1 + i % 4));
      Ids ids;
      bpe.encode(piece, workspace, ids);
      ASSERT_EQ(ids, by_the_rule(piece, merges)) << piece;
    }
  }
}

TEST(Bpe, EqualRanksGoFromTheLeft) {
  const std::vector<BpeMerge> merges = {{'a', 'a', 0, 256}};
  const Bpe bpe(bytes_for_themselves(), merges);
  Bpe::Workspace workspace;
  for (const std::size_t size : {3u, 5u, 41u, 99u}) {
    Ids ids;
    bpe.encode(std::string(size, 'a'), workspace, ids);
    ASSERT_EQ(ids.size(), size / 2 + 1);
    EXPECT_EQ(ids.back(), 'a');
    EXPECT_EQ(std::count(ids.begin(), ids.end(), 256), static_cast<std::ptrdiff_t>(size / 2));
  }
}

TEST(Bpe, AppendsAndTakesNoBytesAsNothing) {
  const Bpe bpe(bytes_for_themselves(), {});
  Bpe::Workspace workspace;
  Ids ids = {7};
  bpe.encode("", workspace, ids);
  bpe.encode("\xFFz", workspace, ids);
  EXPECT_EQ(ids, (Ids{7, 255, 'z'}));
}

TEST(Bpe, LongPiecesOfOneLetterTakeTimeInProportion) {
  // 1 MB of one letter, with tokens of up to 2^12 of them: quadratic work would never end.
  std::vector<BpeMerge> merges = {{'a', 'a', 0, 256}};
  for (std::int32_t i = 1; i < 12; ++i) merges.push_back({255 + i, 255 + i, i, 256 + i});
  const Bpe bpe(bytes_for_themselves(), merges);
  Bpe::Workspace workspace;
  Ids ids;
  bpe.encode(std::string(1u << 20, 'a'), workspace, ids);
  EXPECT_EQ(ids, Ids(1u << 8, 267));
}

}  // namespace
}  // namespace mobius
