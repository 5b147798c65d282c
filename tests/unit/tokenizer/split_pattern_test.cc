#include "engine/tokenizer/split_pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "tests/unit/tokenizer/fixtures.h"

namespace mobius {
namespace {

using Strings = std::vector<std::string>;
using ::testing::HasSubstr;

Strings split(const SplitPattern& pattern, std::string_view text) {
  Pieces pieces(pattern);
  pieces.start(text);
  Strings out;
  for (std::string_view piece = pieces.next(); !piece.empty(); piece = pieces.next()) {
    out.emplace_back(piece);
  }
  return out;
}

TEST(SplitPattern, SplitsAsLlama3) {
  const SplitPattern pattern(kLlama3Split);
  const std::vector<std::pair<std::string, Strings>> cases = {
      {"", {}},
      {"Hello, world!", {"Hello", ",", " world", "!"}},
      {"a  b", {"a", " ", " b"}},
      {"a   \n  b", {"a", "   \n", " ", " b"}},
      {"x   ", {"x", "   "}},
      {"\r\n\r\nx", {"\r\n\r\n", "x"}},
      {"1234567", {"123", "456", "7"}},
      {"It's we'Ll 'tis", {"It", "'s", " we", "'Ll", " '", "tis"}},
      {"it'\u017F", {"it", "'\u017F"}},  // U+017F folds to s
      {"x=1;\n\ny", {"x", "=", "1", ";\n\n", "y"}},
      {"\u00A0a", {"\u00A0a"}},
      {"a\u3000\u3000", {"a", "\u3000\u3000"}},
      {"\u0085\u0085", {"\u0085\u0085"}},
      // Not white space since Unicode 6.3, so it goes with punctuation.
      {" \u180E!", {" \u180E!"}},
      {"\u180E \u180E", {"\u180E", " \u180E"}},
  };
  for (const auto& [text, pieces] : cases) {
    EXPECT_EQ(split(pattern, text), pieces) << text;
  }
}

TEST(SplitPattern, GapsBetweenMatchesArePieces) {
  EXPECT_EQ(split(SplitPattern("[0-9]+"),
                  "ab12cd\u00E9"
                  "3"),
            (Strings{"ab", "12", "cd\u00E9", "3"}));
  EXPECT_EQ(split(SplitPattern("[0-9]+"), "ab"), (Strings{"ab"}));
  EXPECT_EQ(split(SplitPattern("[0-9]*"), "a1\u00E9"), (Strings{"a", "1", "\u00E9"}));
}

TEST(SplitPattern, OneWalkerTakesTextAfterText) {
  const SplitPattern pattern("[0-9]+");
  Pieces pieces(pattern);
  pieces.start("ab12");
  EXPECT_EQ(pieces.next(), "ab");
  pieces.start("34cd");
  EXPECT_EQ(pieces.next(), "34");
  EXPECT_EQ(pieces.next(), "cd");
  EXPECT_EQ(pieces.next(), "");
  EXPECT_EQ(pieces.next(), "");
}

TEST(SplitPattern, PatternsThatNeedStackForEachCharacterStillMatch) {
  const SplitPattern pattern(R"((?:\p{L}|\p{N})+|\s)");
  const std::string run(1'000'000, 'a');
  EXPECT_EQ(split(pattern, run + " " + run), (Strings{run, " ", run}));
}

TEST(SplitPattern, TheRestIsOnePieceWhereAMatchIsGivenUp) {
  // Ever more to remember for each character, beyond what a match may use.
  const SplitPattern pattern(R"([0-9]|(?:(a)|(b)|(\p{L}))+x)");
  const std::string rest(8'000'000, 'a');
  EXPECT_EQ(split(pattern, "12" + rest), (Strings{"1", "2", rest}));
}

TEST(SplitPattern, RefusesWhatPcreReadsDifferently) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"^a", "^ is not supported"},
      {"a$", "$ is not supported"},
      {"a.", ". is not supported"},
      {"\\w+", "\\w is not supported"},
      {"\\bx", "\\b is not supported"},
      {"\\h", "\\h is not supported"},
      {"(a)\\1", "\\1 is not supported"},
      {"[^\\S\\n]", "\\S in a character class"},
      {"[a[b]]", "a nested character class"},
      {"[a-z&&b]", "&& in a character class"},
      {"[]a]", "begins with ]"},
      {"[^]a]", "begins with ]"},
      {"a\\", "a trailing backslash"},
      {"(a", "parenthesis"},
      {"[a", "missing terminating ]"},
      {"\\p{Nonsense}", "property"},
      {"a{2,1}", "quantifier"},
  };
  for (const auto& [regex, message] : cases) {
    try {
      const SplitPattern pattern(regex);
      ADD_FAILURE() << regex << " was accepted";
    } catch (const std::runtime_error& error) {
      EXPECT_THAT(error.what(), HasSubstr("split pattern: "));
      EXPECT_THAT(error.what(), HasSubstr(message)) << regex;
    }
  }
}

}  // namespace
}  // namespace mobius
