#include "engine/grammar/local_tokens.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "engine/grammar/schema_compiler.h"
#include "tests/unit/grammar/languages.h"
#include "tests/unit/tokenizer/fixtures.h"

namespace mobius {
namespace {

Automaton automaton_of(const char* schema) {
  return compile_schema(nlohmann::ordered_json::parse(schema), {}, {}).value();
}

TEST(LocalTokens, EqualOnesAreKeptOnce) {
  const Automaton automaton = automaton_of(R"({"type": "string", "maxLength": 3000})");
  ASSERT_GT(automaton.num_states(), 3000U);
  const TokenTrie trie(small());
  const LocalTokenTable table(automaton, trie, std::size_t{16} << 20U);
  std::set<const LocalTokens*> kept;
  LocalTokens scratch;
  for (std::size_t i = 0; i < automaton.num_states(); ++i) {
    kept.insert(&table.of(static_cast<GrammarState>(i), scratch));
  }
  EXPECT_FALSE(kept.contains(&scratch));
  // Places differ by how near the end is, as far as the longest token reaches.
  EXPECT_LT(kept.size(), 300U);
  EXPECT_LT(table.bytes(), std::size_t{1} << 20U);
}

TEST(LocalTokens, BeyondTheLimitTheyAreFoundAgain) {
  const Automaton automaton = automaton_of(
      R"({"type": "object", "properties": {"a": {"type": "string", "maxLength": 40}, "b": {"enum": [1, 23, 4]}}})");
  const TokenTrie trie(small());
  const LocalTokenTable all(automaton, trie, std::size_t{16} << 20U);
  const LocalTokenTable none(automaton, trie, 0);
  const LocalTokenTable some(automaton, trie, 2000);
  for (int round = 0; round < 2; ++round) {
    for (std::size_t i = 0; i < automaton.num_states(); ++i) {
      const auto state = static_cast<GrammarState>(i);
      LocalTokens unused;
      LocalTokens first;
      LocalTokens second;
      const LocalTokens& expected = all.of(state, unused);
      EXPECT_EQ(&none.of(state, first), &first);
      EXPECT_EQ(first, expected);
      EXPECT_EQ(some.of(state, second), expected);
    }
  }
  EXPECT_EQ(none.bytes(), 0U);
  EXPECT_GT(some.bytes(), 0U);
  EXPECT_LE(some.bytes(), 2000U);
}

TEST(LocalTokens, AGrammarSaysWhatItsMasksHold) {
  const auto grammar = compile(R"({"type": "string", "maxLength": 2000})");
  const std::size_t before = grammar->bytes();
  GrammarMatcher matcher(grammar);
  ASSERT_TRUE(matcher.accept('"'));
  for (int i = 0; i < 1500; ++i) {
    allowed(matcher, small());
    ASSERT_TRUE(matcher.accept('a'));
  }
  EXPECT_GT(grammar->bytes(), before);
  EXPECT_LT(grammar->bytes() - before, std::size_t{256} << 10U);
}

}  // namespace
}  // namespace mobius
