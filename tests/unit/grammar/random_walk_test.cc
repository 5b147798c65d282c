// Texts of random allowed tokens, as a model without any sense would write them.

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/grammar/languages.h"
#include "tests/unit/grammar/schema_checker.h"
#include "tests/unit/tokenizer/fixtures.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

/// How little a token prolongs a text; the least is taken when it is time to end.
int rank(std::string_view bytes) {
  if (bytes == "\"" || bytes == "]" || bytes == "}") return 0;
  if (bytes.find_first_of("[{") != std::string_view::npos) return 4;
  if (bytes.find_first_of(" \t\n") != std::string_view::npos) return 3;
  return bytes.find(',') != std::string_view::npos ? 2 : 1;
}

/// A whole text; empty, with a failure, where the way led nowhere.
std::string walk(const std::shared_ptr<const Grammar>& grammar, const Tokenizer& tokenizer,
                 std::uint32_t seed, int free_steps) {
  std::mt19937 random(seed);
  GrammarMatcher matcher(grammar);
  std::string text;
  for (int step = 0; step < 20000; ++step) {
    const std::vector<std::int32_t> tokens = allowed(matcher, tokenizer);
    if (tokens.empty()) {
      EXPECT_TRUE(matcher.must_end()) << "a dead end after " << text;
      return text;
    }
    if (matcher.can_end() && (step > free_steps || random() % 4 == 0)) return text;
    std::int32_t token = tokens[random() % tokens.size()];
    if (step > free_steps) {
      std::vector<std::int32_t> best;
      int least = 5;
      for (const std::int32_t each : tokens) {
        const int score = rank(tokenizer.bytes(each));
        if (score < least) best.clear();
        least = std::min(least, score);
        if (score == least) best.push_back(each);
      }
      token = best[random() % best.size()];
    }
    EXPECT_TRUE(matcher.accept(token));
    text += tokenizer.bytes(token);
  }
  ADD_FAILURE() << "no end in sight: " << text.substr(0, 500);
  return {};
}

constexpr const char* kSchemas[] = {
    "{}",
    R"({"type": "object"})",
    R"({"type": "array", "items": {"type": "number"}, "minItems": 2})",
    R"({"type": "string", "minLength": 5, "maxLength": 12})",
    R"({"type": "string", "pattern": "^[a-z]{2,4}-\\d+( [A-F]|\"x\")?$"})",
    R"({"type": "string", "pattern": "o+b", "maxLength": 20})",
    R"({"type": "number", "exclusiveMinimum": -12.25, "maximum": 1003.5})",
    R"({"type": "integer", "minimum": -100, "maximum": 77, "multipleOf": 3})",
    R"({"enum": ["a", "ab", "\u20ac\"", 12, 1.25, null, [1, {"x": false}]]})",
    R"({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer",
        "minimum": 0, "maximum": 150}, "email": {"type": ["string", "null"]}, "tags": {"type": "array",
        "items": {"enum": ["x", "y"]}, "maxItems": 4}}, "required": ["name", "tags"],
        "additionalProperties": false})",
    R"({"type": "object", "properties": {"id": {"type": "integer"}, "ix": {"type": "null"}},
        "required": ["extra"], "additionalProperties": {"type": "boolean"}})",
    R"({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"value":
        {"type": "integer"}, "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        "right": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
        "required": ["value", "left", "right"], "additionalProperties": false}}})",
    R"({"anyOf": [{"type": "array", "prefixItems": [{"const": "p"}, {"type": "number"}],
        "items": {"type": "boolean"}, "minItems": 2, "maxItems": 5}, {"type": "object", "properties":
        {"kind": {"const": "q"}, "v": {"$ref": "#"}}, "required": ["kind"]}]})",
    R"({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        {"properties": {"a": {"minimum": 10}, "b": {"oneOf": [{"type": "null"},
        {"type": "string", "maxLength": 3}]}}}], "anyOf": [{"required": ["b"]}, {}]})",
};

void check_walks(const Tokenizer& tokenizer, int walks) {
  const auto vocabulary = GrammarVocabulary::make(tokenizer);
  for (const char* text : kSchemas) {
    const Json schema = Json::parse(text);
    const auto grammar = Grammar::json_schema(schema, vocabulary);
    ASSERT_TRUE(grammar.ok()) << text << grammar.status().message();
    for (int seed = 0; seed < walks; ++seed) {
      const std::string out =
          walk(grammar.value(), tokenizer, static_cast<std::uint32_t>(seed), 40);
      const Json value = Json::parse(out, nullptr, false);
      ASSERT_FALSE(value.is_discarded()) << out;
      ASSERT_TRUE(meets(value, schema, schema)) << text << "\n" << out;
    }
  }
}

TEST(RandomWalk, SmallTokenizer) {
  check_walks(small(), 150);
}

TEST(RandomWalk, TrainedTokenizer) {
  check_walks(*Tokenizer::load(std::filesystem::path(MOBIUS_SOURCE_DIR) / "models/mobius-tiny"),
              20);
}

TEST(RandomWalk, LlamaTokenizer) {
  if (!std::filesystem::exists(test_data() / "llama3.1/tokenizer.json")) {
    GTEST_SKIP() << "no " << test_data() / "llama3.1"
                 << "; set MOBIUS_TEST_DATA";
  }
  check_walks(*Tokenizer::load(test_data() / "llama3.1"), 5);
}

TEST(RandomWalk, TheCheckerItselfRefuses) {
  const auto says = [](const char* value, const char* schema) {
    const Json parsed = Json::parse(schema);
    return meets(Json::parse(value), parsed, parsed);
  };
  EXPECT_FALSE(says("1", R"({"type": "string"})"));
  EXPECT_FALSE(says("1.5", R"({"type": "integer"})"));
  EXPECT_FALSE(says("{}", R"({"required": ["a"]})"));
  EXPECT_FALSE(says("[1]", R"({"items": {"type": "null"}})"));
  EXPECT_FALSE(says("\"abc\"", R"({"maxLength": 2})"));
  EXPECT_FALSE(says("3", R"({"exclusiveMaximum": 3})"));
  EXPECT_FALSE(says("{\"a\": 1}", R"({"additionalProperties": false})"));
  EXPECT_TRUE(says("[1, {\"a\": null}]", R"({"minItems": 2})"));
}

}  // namespace
}  // namespace mobius
