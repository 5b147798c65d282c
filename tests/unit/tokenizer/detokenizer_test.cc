#include "engine/tokenizer/detokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "engine/tokenizer/utf8.h"
#include "tests/unit/tokenizer/fixtures.h"

namespace mobius {
namespace {

const std::string kReplacement = "\xEF\xBF\xBD";

std::shared_ptr<const Tokenizer> small() {
  static const std::shared_ptr<const Tokenizer> tokenizer = load_json(small_tokenizer());
  return tokenizer;
}

std::string with_replacements(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '?') {
      out += kReplacement;
    } else {
      out += c;
    }
  }
  return out;
}

/// The stream of one token per byte, checked on the way: nothing but whole characters comes out.
std::string stream_bytes(std::string_view bytes) {
  Detokenizer detokenizer(*small());
  std::string out;
  const auto take = [&](const std::string& part) {
    EXPECT_EQ(utf8_valid_prefix(part), part.size());
    out += part;
  };
  for (const char c : bytes) take(detokenizer.push(static_cast<unsigned char>(c)));
  take(detokenizer.finish());
  return out;
}

TEST(Detokenizer, HoldsACharacterBackUntilItIsWhole) {
  Detokenizer detokenizer(*small());
  EXPECT_EQ(detokenizer.push('a'), "a");
  EXPECT_EQ(detokenizer.push(0xF0), "");
  EXPECT_EQ(detokenizer.push(0x9F), "");
  EXPECT_EQ(detokenizer.push(0x99), "");
  EXPECT_EQ(detokenizer.push(0x82), "\xF0\x9F\x99\x82");
  EXPECT_EQ(detokenizer.push(0xC3), "");
  EXPECT_EQ(detokenizer.push('b'), with_replacements("?b"));
  EXPECT_EQ(detokenizer.push(0xE2), "");
  EXPECT_EQ(detokenizer.push(0x82), "");
  EXPECT_EQ(detokenizer.finish(), kReplacement);
  EXPECT_EQ(detokenizer.finish(), "");
  EXPECT_EQ(detokenizer.push('c'), "c");
}

TEST(Detokenizer, EachMaximalIllFormedPartBecomesOneReplacement) {
  // A question mark stands for U+FFFD.
  const std::vector<std::pair<std::string, std::string>> cases = {
      // The example of Unicode 15, table 3-11.
      {"\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64", "a???b?c??d"},
      // Tables 3-8 to 3-10: overlong forms, surrogates, others.
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "????????A"},
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "????????A"},
      {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "?????A??B"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "????A"},
      {"\xF0\x9F\x99", "?"},
      {"\xFF", "?"},
  };
  for (const auto& [bytes, text] : cases) {
    EXPECT_EQ(stream_bytes(bytes), with_replacements(text)) << ::testing::PrintToString(bytes);
  }
}

TEST(Detokenizer, TheCutBetweenTokensDoesNotMatter) {
  // Every way to cut the bytes into tokens, by which of the merges have been made.
  const std::string text = "hello  h\xC3\xA9llo \xF0\x9F\x99\x82 w\xE2\x82\xACorld\n\n123";
  ASSERT_EQ(stream_bytes(text), text);
  const std::vector<std::int32_t> ids = encode(*small(), text);
  for (std::size_t cut = 0; cut <= ids.size(); ++cut) {
    Detokenizer detokenizer(*small());
    std::string out;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      // Before the cut as merged tokens, behind it byte by byte.
      if (i < cut) {
        out += detokenizer.push(ids[i]);
      } else {
        for (const char c : small()->bytes(ids[i])) {
          out += detokenizer.push(static_cast<unsigned char>(c));
        }
      }
    }
    EXPECT_EQ(out + detokenizer.finish(), text);
  }
}

TEST(Detokenizer, SpecialTokensPrintNothingAndBreakNoCharacter) {
  const std::int32_t special = small()->special("<|eot_id|>").value();
  Detokenizer detokenizer(*small());
  EXPECT_EQ(detokenizer.push(special), "");
  EXPECT_EQ(detokenizer.push(0xC3), "");
  EXPECT_EQ(detokenizer.push(special), "");
  EXPECT_EQ(detokenizer.push(0xA9), "\xC3\xA9");
  EXPECT_EQ(detokenizer.push(-1), "");
  EXPECT_EQ(detokenizer.push(1 << 30), "");
  EXPECT_EQ(detokenizer.finish(), "");
}

TEST(Detokenizer, RandomBytesStreamAsTheyDecodeAtOnce) {
  std::mt19937 draw(11);
  for (int round = 0; round < 500; ++round) {
    std::string bytes(draw() % 40, ' ');
    constexpr unsigned char kTelling[] = {0x41, 0x7F, 0x80, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xE0,
                                          0xE1, 0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF, 0x90};
    for (char& c : bytes) c = static_cast<char>(kTelling[draw() % sizeof(kTelling)]);
    std::string expected;
    for (std::string_view rest = bytes; !rest.empty();) {
      const Utf8Step step = utf8_step(rest);
      expected += step.kind == Utf8Step::Kind::valid ? std::string(rest.substr(0, step.length))
                                                     : kReplacement;
      rest.remove_prefix(step.length);
    }
    EXPECT_EQ(stream_bytes(bytes), expected) << ::testing::PrintToString(bytes);
  }
}

}  // namespace
}  // namespace mobius
