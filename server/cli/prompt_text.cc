#include "server/cli/prompt_text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

namespace mobius {
namespace {

// A token each in most vocabularies.
constexpr std::array<std::string_view, 64> kWords = {
    "the",   "of",     "and",   "to",    "in",    "for",   "that",  "with",  "from",  "by",
    "this",  "have",   "are",   "not",   "was",   "they",  "would", "there", "about", "which",
    "time",  "people", "year",  "way",   "day",   "thing", "world", "life",  "hand",  "part",
    "child", "eye",    "woman", "place", "work",  "week",  "case",  "point", "home",  "water",
    "room",  "money",  "book",  "night", "house", "door",  "city",  "name",  "team",  "game",
    "head",  "side",   "line",  "end",   "road",  "table", "light", "river", "story", "white",
    "small", "early",  "young", "state"};

/// Splitmix64: every block's words begin at a place of their own.
std::uint64_t next(std::uint64_t& state) {
  state += 0x9e3779b97f4a7c15ULL;
  std::uint64_t mixed = state;
  mixed = (mixed ^ (mixed >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  mixed = (mixed ^ (mixed >> 27U)) * 0x94d049bb133111ebULL;
  return mixed ^ (mixed >> 31U);
}

void append_words(std::string& text, std::uint64_t seed, std::int64_t count) {
  std::uint64_t state = seed;
  for (std::int64_t i = 0; i < count; ++i) {
    if (!text.empty()) text += ' ';
    text += kWords[next(state) % kWords.size()];
  }
}

}  // namespace

TokenRate TokenRate::of(std::int64_t few, std::int64_t few_tokens, std::int64_t many,
                        std::int64_t many_tokens) {
  TokenRate rate;
  if (few_tokens <= 0 || many_tokens <= few_tokens || many <= few) return rate;
  rate.tokens_per_word =
      static_cast<double>(many_tokens - few_tokens) / static_cast<double>(many - few);
  rate.overhead = std::max(
      0.0, static_cast<double>(few_tokens) - rate.tokens_per_word * static_cast<double>(few));
  return rate;
}

std::string filler_words(std::uint64_t seed, std::int64_t count) {
  std::string text;
  append_words(text, seed, count);
  return text;
}

std::string prompt_text(const PlannedRequest& request, const TokenRate& rate) {
  const auto words_of = [&](double tokens) {
    return static_cast<std::int64_t>(std::llround(tokens / rate.tokens_per_word));
  };
  std::int64_t left = std::max<std::int64_t>(
      1, words_of(static_cast<double>(request.prompt_tokens) - rate.overhead));
  const std::int64_t each =
      std::max<std::int64_t>(1, words_of(static_cast<double>(request.block_tokens)));
  std::string text;
  for (const std::uint64_t block : request.blocks) {
    const std::int64_t count = std::min(left, each);
    append_words(text, block, count);
    left -= count;
    if (left <= 0) break;
  }
  // Rounding blocks to whole words may leave a few over.
  if (left > 0 && !request.blocks.empty()) append_words(text, ~request.blocks.back(), left);
  return text;
}

}  // namespace mobius
