#include <gtest/gtest.h>

#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/grammar/languages.h"
#include "tests/unit/tokenizer/fixtures.h"

namespace mobius {
namespace {

constexpr const char* kSchema = R"({"type": "object", "properties": {
    "hello": {"type": "string", "maxLength": 9}, "n": {"type": "number", "maximum": 12.5},
    "list": {"type": "array", "items": {"anyOf": [{"enum": ["hell", "hello"]}, {"$ref": "#"},
    {"type": "string", "pattern": "^(hello )+w"}]}}}, "additionalProperties": {"type": "string"}})";

TEST(Matcher, MasksAreWhatTryingEveryTokenGives) {
  std::mt19937 random(3);
  for (const auto& grammar : {compile(kSchema), Grammar::json_object(small_vocabulary())}) {
    for (int walk = 0; walk < 20; ++walk) {
      GrammarMatcher matcher(grammar);
      for (int step = 0; step < 60 && !matcher.must_end(); ++step) {
        std::vector<std::int32_t> expected;
        for (std::int32_t token = -1; token <= small().vocab_size(); ++token) {
          GrammarMatcher copy = matcher;
          if (copy.accept(token)) expected.push_back(token);
        }
        ASSERT_EQ(allowed(matcher, small()), expected);
        ASSERT_FALSE(expected.empty());
        ASSERT_TRUE(matcher.accept(expected[random() % expected.size()]));
      }
    }
  }
}

TEST(Matcher, WhatIsNotAllowedChangesNothing) {
  GrammarMatcher matcher(compile(R"({"enum": ["hello", "help"]})"));
  ASSERT_TRUE(matcher.accept('"'));
  const std::int32_t hello = encode(small(), "hello").front();
  EXPECT_FALSE(matcher.accept(encode(small(), " hello").front()));
  EXPECT_FALSE(matcher.accept('x'));
  EXPECT_FALSE(matcher.accept(-1));
  EXPECT_FALSE(matcher.accept(small().vocab_size()));
  EXPECT_FALSE(matcher.accept(*small().special("<|eot_id|>")));
  EXPECT_FALSE(matcher.can_end());
  EXPECT_TRUE(matcher.accept(hello));
  EXPECT_TRUE(matcher.accept('"'));
  EXPECT_TRUE(matcher.can_end());
  EXPECT_TRUE(matcher.must_end());
  EXPECT_TRUE(allowed(matcher, small()).empty());
}

TEST(Matcher, MayEndWhereMoreCanFollow) {
  GrammarMatcher matcher(compile(R"({"type": "integer", "maximum": 15})"));
  ASSERT_TRUE(matcher.accept('1'));
  EXPECT_TRUE(matcher.can_end());
  EXPECT_FALSE(matcher.must_end());
  ASSERT_TRUE(matcher.accept('5'));
  EXPECT_TRUE(matcher.must_end());
}

TEST(Matcher, CharactersMaySpanTokens) {
  GrammarMatcher matcher(compile(R"({"type": "string"})"));
  for (const int byte : {0x22, 0xF0, 0x9F, 0x98}) ASSERT_TRUE(matcher.accept(byte));
  // Nothing but the last byte of the character.
  std::vector<std::int32_t> continuations;
  for (std::int32_t byte = 0x80; byte < 0xC0; ++byte) continuations.push_back(byte);
  EXPECT_EQ(allowed(matcher, small()), continuations);
}

TEST(Matcher, CopiesGoOnIndependently) {
  GrammarMatcher first(compile(R"({"type": "array", "items": {"type": "integer"}})"));
  ASSERT_TRUE(first.accept('['));
  GrammarMatcher second = first;
  ASSERT_TRUE(first.accept('1'));
  ASSERT_TRUE(second.accept(']'));
  EXPECT_TRUE(second.must_end());
  EXPECT_FALSE(first.can_end());
  ASSERT_TRUE(first.accept(']'));
  EXPECT_TRUE(first.must_end());
}

TEST(Matcher, ClearsWordsBehindTheVocabulary) {
  GrammarMatcher matcher(compile(R"({"type": "string"})"));
  std::vector<std::uint32_t> mask(1000, 0xFFFFFFFFU);
  for (int repeat = 0; repeat < 2; ++repeat) {
    matcher.fill_mask(mask);
    EXPECT_EQ(mask.back(), 0U);
    ASSERT_TRUE(matcher.accept(repeat == 0 ? '"' : 'a'));
  }
}

TEST(Matcher, LongTextsDoNotGrow) {
  // Every level of nesting is a new stack; the matcher has to forget the ones it left.
  GrammarMatcher matcher(Grammar::json_object(small_vocabulary()));
  for (const char c : std::string("{\"a\":[")) ASSERT_TRUE(matcher.accept(c));
  std::vector<std::uint32_t> mask((static_cast<std::size_t>(small().vocab_size()) + 31) / 32);
  for (int round = 0; round < 3000; ++round) {
    for (const char c : std::string("{\"a\":[\"b\",{\"c\":{}}]},")) {
      matcher.fill_mask(mask);
      ASSERT_TRUE(matcher.accept(c));
    }
  }
  for (const char c : std::string("1]}")) ASSERT_TRUE(matcher.accept(c));
  EXPECT_TRUE(matcher.must_end());
}

TEST(Matcher, DeepNestingIsFollowed) {
  GrammarMatcher matcher(compile(kSchema));
  for (int depth = 0; depth < 5000; ++depth) {
    for (const char c : std::string("{\"list\":[")) ASSERT_TRUE(matcher.accept(c));
  }
  for (int depth = 0; depth < 5000; ++depth) {
    EXPECT_FALSE(matcher.can_end());
    for (const char c : std::string("]}")) ASSERT_TRUE(matcher.accept(c));
  }
  EXPECT_TRUE(matcher.must_end());
}

TEST(Matcher, AGrammarServesManyThreads) {
  const auto grammar = compile(kSchema);
  std::vector<std::vector<std::int32_t>> results(4);
  std::vector<std::thread> threads;
  for (auto& result : results) {
    threads.emplace_back([&grammar, &result] {
      GrammarMatcher matcher(grammar);
      for (const char c : std::string(R"({"hello":"abc","list":["hello wo)")) {
        const auto tokens = allowed(matcher, small());
        result.insert(result.end(), tokens.begin(), tokens.end());
        matcher.accept(static_cast<unsigned char>(c));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) {
    EXPECT_FALSE(result.empty());
    EXPECT_EQ(result, results[0]);
  }
}

}  // namespace
}  // namespace mobius
