#include "engine/grammar/pattern.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <regex>
#include <string>
#include <vector>

#include "tests/unit/grammar/languages.h"

namespace mobius {
namespace {

using nlohmann::json;

std::shared_ptr<const Grammar> with(const std::string& keyword, const json& value) {
  return compile(json{{"type", "string"}, {keyword, value}}.dump());
}

bool takes(const std::shared_ptr<const Grammar>& grammar, const std::string& value) {
  return accepts(grammar, json(value).dump());
}

TEST(Pattern, AgreesWithAnotherEngineOnRandomTexts) {
  std::mt19937 random(7);
  for (const char* pattern : {"^[a-c]+$",
                              "ab",
                              "^ab",
                              "ab$",
                              "a|bc",
                              "^a|c$",
                              "^(a|bc)*$",
                              "^(?:ab?){2,3}$",
                              "^a{2}b{1,}$",
                              "^[^a]*$",
                              "^.b.$",
                              "^\\d+\\w?\\s$",
                              "^[\\da-b-]+$",
                              "^a?b??c*?$",
                              "^$",
                              "",
                              "a(b|)c",
                              "^\\$\\.\\/$",
                              "^\\x61\\u0062$",
                              "^[\\]\\\\]$",
                              "^((a|b)(c|))+$",
                              "^\"a\"$"}) {
    const auto grammar = with("pattern", pattern);
    ASSERT_NE(grammar, nullptr) << pattern;
    const std::regex judge(pattern);
    const std::string letters = "abc1 $./]\\\"-_";
    for (int i = 0; i < 400; ++i) {
      std::string text;
      const auto length = random() % 7;
      const std::size_t choices = i % 2 == 0 ? 3 : letters.size();
      for (unsigned j = 0; j < length; ++j) text += letters[random() % choices];
      EXPECT_EQ(takes(grammar, text), std::regex_search(text, judge)) << pattern << " : " << text;
    }
  }
}

TEST(Pattern, CountsCharactersAndLeavesOutControlsOnlyWhereItSays) {
  const auto one = with("pattern", "^.$");
  EXPECT_TRUE(takes(one, "\xF0\x9F\x98\x80"));
  EXPECT_TRUE(takes(one, "\t"));
  EXPECT_FALSE(takes(one, "\n"));
  EXPECT_FALSE(takes(one, "\xE2\x80\xA8"));  // a line separator
  const auto greek = with("pattern", "^[\\u03b1-\\u03c9]+$");
  EXPECT_TRUE(takes(greek, "\xCE\xB1\xCF\x89"));
  EXPECT_FALSE(takes(greek, "\xCE\x91"));
  const auto high = with("pattern", "^[^\\x00-\\uFFFF]$");
  EXPECT_TRUE(takes(high, "\xF0\x90\x80\x80"));
  EXPECT_FALSE(takes(high, "\xEF\xBF\xBF"));
}

TEST(Pattern, WithLengths) {
  const auto grammar =
      compile(R"({"type": "string", "pattern": "^(ab)+$", "minLength": 3, "maxLength": 6})");
  EXPECT_FALSE(takes(grammar, "ab"));
  EXPECT_TRUE(takes(grammar, "abab"));
  EXPECT_TRUE(takes(grammar, "ababab"));
  EXPECT_FALSE(takes(grammar, "abababab"));
  // No way leads into a dead end: after five characters only the sixth can follow.
  EXPECT_EQ(accepted_prefix(grammar, "\"abababa"), 7u);
}

TEST(Pattern, RefusesWhatItDoesNotKnow) {
  for (const char* pattern :
       {"(",   ")",      "a)",      "[a",    "*",       "a**",     "a{2",   "a{x}",
        "{2}", "a{3,2}", "a{1001}", "(?=a)", "(?<n>a)", "\\b",     "\\1",   "\\p{L}",
        "a^b", "a$b",    "(^a)",    "\\",    "\\u12",   "\\ud800", "[b-a]", "[\\d-z]"}) {
    PatternAutomaton automaton;
    std::size_t steps = 1U << 20U;
    std::string error;
    EXPECT_FALSE(compile_pattern(pattern, 1000, steps, automaton, error)) << pattern;
    EXPECT_FALSE(error.empty());
  }
}

TEST(Pattern, WhatTakesLongIsBoundedForAWholeSchema) {
  // Few states, each of many places in the pattern.
  const auto schema = [](int patterns, bool same) {
    std::string properties;
    for (int i = 0; i < patterns; ++i) {
      properties += (i > 0 ? ",\"p" : "\"p") + std::to_string(i) +
                    R"(": {"type": "string", "pattern": "^(a{0,9}b{0,9}c{0,9}d{0,9}){0,20})" +
                    std::string(same ? 0U : static_cast<std::size_t>(i), 'x') + "$\"}";
    }
    return R"({"type": "object", "properties": {)" + properties + "}}";
  };
  EXPECT_EQ(refusal(schema(3, false)), "");
  EXPECT_EQ(refusal(schema(100, true)), "") << "one pattern, compiled once";
  const std::string message = refusal(schema(100, false));
  EXPECT_NE(message.find("/properties/p"), std::string::npos) << message;
  EXPECT_NE(message.find("takes too long to compile"), std::string::npos) << message;
}

TEST(Format, TakesAndRefuses) {
  struct Case {
    const char* format;
    std::vector<std::string> in;
    std::vector<std::string> out;
  };
  for (const Case& each : std::vector<Case>{
           {"date",
            {"2024-02-29", "2000-02-29", "1999-12-31", "0001-01-01"},
            {"2023-02-29", "1900-02-29", "2024-04-31", "2024-13-01", "0000-01-01", "24-01-01"}},
           {"time", {"23:59:59Z", "00:00:00.123+05:30"}, {"24:00:00Z", "12:00Z", "12:00:00"}},
           {"date-time", {"2024-02-29T12:00:00Z"}, {"2024-02-30T12:00:00Z", "2024-02-29"}},
           {"duration",
            {"P1D", "P1Y2M3DT4H5M6S", "PT1S", "P2W", "P1M2D"},
            {"P", "PT", "P1S", "P1W2D", "1D"}},
           {"email",
            {"a.b+c@example.org"},
            {"a@b", "@example.org", "a..b@example.org", "a b@c.de"}},
           {"hostname", {"a", "a-b.example.org"}, {"", "-a", "a-", "a..b", "a_b"}},
           {"ipv4", {"0.0.0.0", "255.249.199.1"}, {"256.1.1.1", "1.1.1", "01.1.1.1"}},
           {"ipv6",
            {"::", "::1", "1:2:3:4:5:6:7:8", "1::8", "fe80::aB:0", "1:2:3:4:5:6::"},
            {":", ":::", "1:2:3:4:5:6:7", "1::2::3", "1:2:3:4:5:6:7:8:9", "12345::"}},
           {"uuid",
            {"123e4567-e89b-12d3-a456-426614174000"},
            {"123e4567", "g23e4567-e89b-12d3-a456-426614174000"}},
       }) {
    const auto grammar = with("format", each.format);
    ASSERT_NE(grammar, nullptr);
    for (const std::string& text : each.in) EXPECT_TRUE(takes(grammar, text)) << text;
    for (const std::string& text : each.out) {
      EXPECT_FALSE(takes(grammar, text)) << each.format << " " << text;
    }
  }
}

TEST(Numbers, BoundsAgreeWithArithmetic) {
  std::mt19937 random(11);
  const auto bound = [&] {
    constexpr double kScales[] = {1, 10, 100, 1000};
    const double value = static_cast<int>(random() % 4001) - 2000;
    return value / kScales[random() % 4];
  };
  for (int round = 0; round < 150; ++round) {
    const double a = bound();
    const double b = bound();
    const double low = std::min(a, b);
    const double high = std::max(a, b);
    const bool open_low = random() % 2 == 0;
    const bool open_high = random() % 2 == 0;
    const bool integer = random() % 2 == 0;
    json schema = {{"type", integer ? "integer" : "number"}};
    const bool has_low = random() % 4 != 0;
    const bool has_high = random() % 4 != 0;
    if (has_low) schema[open_low ? "exclusiveMinimum" : "minimum"] = low;
    if (has_high) schema[open_high ? "exclusiveMaximum" : "maximum"] = high;
    const auto made =
        Grammar::json_schema(nlohmann::ordered_json::parse(schema.dump()), small_vocabulary());
    if (!made.ok()) {
      // Nothing lies between them.
      EXPECT_NE(made.status().message().find("finite"), std::string::npos);
      for (int i = -2000; i <= 2000; ++i) {
        const bool above = !has_low || (open_low ? i > low : i >= low);
        const bool below = !has_high || (open_high ? i < high : i <= high);
        EXPECT_FALSE(above && below) << schema << " " << i;
      }
      continue;
    }
    const auto& grammar = made.value();
    for (int i = 0; i < 200; ++i) {
      const double value = i % 4 == 0 ? low : i % 4 == 1 ? high : bound();
      if (integer && value != static_cast<double>(static_cast<int>(value))) continue;
      const json text = value;
      std::string written = text.dump();
      if (written.ends_with(".0")) written.resize(written.size() - 2);
      if (written == "-0" || written.find('e') != std::string::npos) continue;
      const bool above = !has_low || (open_low ? value > low : value >= low);
      const bool below = !has_high || (open_high ? value < high : value <= high);
      EXPECT_EQ(accepts(grammar, written), above && below) << schema << " " << written;
    }
  }
}

TEST(Numbers, Multiples) {
  const auto seven =
      compile(R"({"type": "integer", "multipleOf": 7, "minimum": -20, "maximum": 1000})");
  for (int i = -30; i < 1100; ++i) {
    EXPECT_EQ(accepts(seven, std::to_string(i)), i % 7 == 0 && i >= -20 && i <= 1000) << i;
  }
  const auto cents = compile(R"({"type": "number", "multipleOf": 0.01, "minimum": 0})");
  EXPECT_TRUE(accepts(cents, "12.34"));
  EXPECT_TRUE(accepts(cents, "7"));
  EXPECT_FALSE(accepts(cents, "12.345"));
  EXPECT_FALSE(accepts(cents, "-1"));
}

}  // namespace
}  // namespace mobius
