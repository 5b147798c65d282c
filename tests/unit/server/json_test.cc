#include "server/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;

std::string error_of(std::string_view text, const JsonLimits& limits = {}) {
  Json out;
  std::string error;
  return parse_json(text, limits, out, error) ? "" : error;
}

TEST(Json, BuildsWhatTheLibraryBuilds) {
  const std::string text =
      R"({"b": [1, -2, 3.5, true, false, null, "x\u00e9\n", {}, [], [[{"q": [0]}]]],)"
      R"( "a": {"z": 18446744073709551615, "y": -9223372036854775808, "": 1e-3}})";
  Json out;
  std::string error;
  ASSERT_TRUE(parse_json(text, {}, out, error)) << error;
  EXPECT_EQ(out, Json::parse(text));
  EXPECT_EQ(out.dump(), Json::parse(text).dump()) << "the order of keys must be kept";
}

TEST(Json, ScalarsAreTexts) {
  for (const char* text : {"1", "\"a\"", "null", " true "}) {
    Json out;
    std::string error;
    EXPECT_TRUE(parse_json(text, {}, out, error)) << text;
    EXPECT_EQ(out, Json::parse(text));
  }
}

TEST(Json, RefusesDuplicateKeysAtAnyDepth) {
  EXPECT_EQ(error_of(R"({"a": 1, "b": 2, "a": 3})"), "duplicate key \"a\"");
  EXPECT_EQ(error_of(R"([{"x": {"a": 1, "a": 1}}])"), "duplicate key \"a\"");
  EXPECT_EQ(error_of(R"({"a": {"a": {"a": 1}}})"), "");
}

TEST(Json, Limits) {
  EXPECT_EQ(error_of("[[[1]]]", {.depth = 3, .values = 100}), "");
  EXPECT_EQ(error_of("[[[[1]]]]", {.depth = 3, .values = 100}), "nested deeper than 3 levels");
  EXPECT_EQ(error_of("[1,2,3,4]", {.depth = 3, .values = 5}), "");
  EXPECT_EQ(error_of("[1,2,3,4,5]", {.depth = 3, .values = 5}), "more than 5 values");
}

TEST(Json, SaysWhere) {
  EXPECT_THAT(error_of("{\n  \"a\": ]\n}"), HasSubstr("line 2, column 8"));
  EXPECT_THAT(error_of("{} {}"), HasSubstr("line 1, column 4"));
}

TEST(Json, IsStrict) {
  for (const char* text : {"",
                           " ",
                           "{",
                           "[1,]",
                           "{\"a\":1,}",
                           "{a:1}",
                           "'a'",
                           "NaN",
                           "Infinity",
                           "-",
                           "01",
                           "1.",
                           "// c\n1",
                           "1e999",
                           "\"\t\"",
                           "\"\\x\"",
                           "\"\xff\"",
                           "\"\xc3\"",
                           "\"\xed\xa0\x80\"",
                           "\"\\ud800\"",
                           "\"\\udc00\""}) {
    EXPECT_NE(error_of(text), "") << text;
    EXPECT_EQ(error_of(text).find('\n'), std::string::npos) << text;
  }
}

TEST(Json, ManyKeysTakeLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 200000; ++i) text += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":0";
  EXPECT_EQ(error_of(text + "}"), "");
}

TEST(Json, BriefTextCutsBetweenCharacters) {
  EXPECT_EQ(brief_text("abc", 3), "abc");
  EXPECT_EQ(brief_text("abcd", 3), "abc...");
  EXPECT_EQ(brief_text("ab\u00e9d", 3), "ab...");
  EXPECT_EQ(brief_text("a\nb\tc", 10), "a?b?c");
}

TEST(Json, BriefNamesValues) {
  EXPECT_EQ(brief(Json(1.5)), "1.5");
  EXPECT_EQ(brief(Json("x")), "\"x\"");
  EXPECT_EQ(brief(Json::array({1})), "an array");
}

}  // namespace
}  // namespace mobius
