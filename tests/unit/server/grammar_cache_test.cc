#include "server/grammar_cache.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/unit/engine/support.h"

namespace mobius {
namespace {

ResponseFormat json_schema(const std::string& schema) {
  return {ResponseFormat::Kind::json_schema, schema};
}

std::string constant(int value) {
  return "{\"const\":" + std::to_string(value) + "}";
}

TEST(GrammarCache, TextNeedsNone) {
  GrammarCache cache(*byte_tokenizer());
  const auto grammar = cache.get({});
  ASSERT_TRUE(grammar.ok());
  EXPECT_EQ(grammar.value(), nullptr);
}

TEST(GrammarCache, KeepsWhatWasUsedLast) {
  GrammarCache cache(*byte_tokenizer());
  EXPECT_EQ(cache.get({ResponseFormat::Kind::json_object, ""}).value(),
            cache.get({ResponseFormat::Kind::json_object, ""}).value());
  const auto first = cache.get(json_schema(constant(0))).value();
  const auto second = cache.get(json_schema(constant(1))).value();
  EXPECT_NE(first, second);
  for (int i = 2; i < 64; ++i) {
    ASSERT_TRUE(cache.get(json_schema(constant(i))).ok());
    EXPECT_EQ(cache.get(json_schema(constant(0))).value(), first);
  }
  ASSERT_TRUE(cache.get(json_schema(constant(64))).ok());
  EXPECT_EQ(cache.get(json_schema(constant(0))).value(), first);
  EXPECT_NE(cache.get(json_schema(constant(1))).value(), second) << "kept more than 64";
}

TEST(GrammarCache, RefusalsNameTheField) {
  GrammarCache cache(*byte_tokenizer());
  for (const char* schema : {"{", "{\"not\": {}}", "3", "{\"type\": \"string\"} {}"}) {
    const auto grammar = cache.get(json_schema(schema));
    ASSERT_FALSE(grammar.ok()) << schema;
    EXPECT_EQ(grammar.status().code(), StatusCode::invalid_argument);
    EXPECT_EQ(grammar.status().field(), "response_format.schema");
    EXPECT_TRUE(grammar.status().message().starts_with("response_format.schema "))
        << grammar.status().message();
  }
}

}  // namespace
}  // namespace mobius
