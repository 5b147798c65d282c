#include "engine/tokenizer/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mobius {
namespace {

using Kind = Utf8Step::Kind;

struct StepCase {
  std::string bytes;
  Kind kind;
  std::size_t length;
  char32_t code_point = 0;
};

TEST(Utf8, ReadsOneCharacterOrOneMaximalIllFormedPart) {
  const std::vector<StepCase> cases = {
      {std::string(1, '\0'), Kind::valid, 1, 0},
      {"a", Kind::valid, 1, 'a'},
      {"\x7F", Kind::valid, 1, 0x7F},
      {"\xC2\x80", Kind::valid, 2, 0x80},
      {"\xDF\xBF", Kind::valid, 2, 0x7FF},
      {"\xE0\xA0\x80", Kind::valid, 3, 0x800},
      {"\xED\x9F\xBF", Kind::valid, 3, 0xD7FF},
      {"\xEE\x80\x80", Kind::valid, 3, 0xE000},
      {"\xEF\xBF\xBF", Kind::valid, 3, 0xFFFF},
      {"\xF0\x90\x80\x80", Kind::valid, 4, 0x10000},
      {"\xF4\x8F\xBF\xBF", Kind::valid, 4, 0x10FFFF},
      {"\x80", Kind::invalid, 1},
      {"\xBF\x80", Kind::invalid, 1},
      {"\xC0\x80", Kind::invalid, 1},          // overlong
      {"\xC1\xBF", Kind::invalid, 1},          // overlong
      {"\xE0\x9F\xBF", Kind::invalid, 1},      // overlong
      {"\xF0\x8F\xBF\xBF", Kind::invalid, 1},  // overlong
      {"\xED\xA0\x80", Kind::invalid, 1},      // a surrogate
      {"\xF4\x90\x80\x80", Kind::invalid, 1},  // above U+10FFFF
      {"\xF5\x80\x80\x80", Kind::invalid, 1},
      {"\xFF", Kind::invalid, 1},
      {"\xC3z", Kind::invalid, 1},
      {"\xE2\x82z", Kind::invalid, 2},
      {"\xF0\x9F\x99z", Kind::invalid, 3},
      {"\xF0\x9F\xC3\xA9", Kind::invalid, 2},
      {"\xC3", Kind::incomplete, 1},
      {"\xE2\x82", Kind::incomplete, 2},
      {"\xF0\x9F\x99", Kind::incomplete, 3},
  };
  for (const StepCase& expected : cases) {
    const Utf8Step step = utf8_step(expected.bytes);
    EXPECT_EQ(step.kind, expected.kind) << ::testing::PrintToString(expected.bytes);
    EXPECT_EQ(step.length, expected.length) << ::testing::PrintToString(expected.bytes);
    if (expected.kind == Kind::valid) {
      EXPECT_EQ(step.code_point, expected.code_point);
    }
  }
}

TEST(Utf8, ValidPrefixEndsWhereTheFirstBrokenByteStands) {
  EXPECT_EQ(utf8_valid_prefix(""), 0u);
  const std::string text =
      "plain ASCII text, then \xC3\xA9\xE2\x82\xAC\xF0\x9F\x99\x82 and more of it";
  EXPECT_EQ(utf8_valid_prefix(text), text.size());
  for (std::size_t at = 0; at <= text.size(); ++at) {
    const bool boundary = at == text.size() || (text[at] & 0xC0) != 0x80;
    if (!boundary) continue;
    std::string broken = text;
    broken.insert(at, 1, '\xFF');
    EXPECT_EQ(utf8_valid_prefix(broken), at);
  }
}

}  // namespace
}  // namespace mobius
