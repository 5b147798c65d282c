#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/unit/grammar/languages.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

std::shared_ptr<const Grammar> compile_forms(std::string_view schema, const GrammarForms& forms) {
  auto grammar = Grammar::json_schema(Json::parse(schema), small_vocabulary(), {}, forms);
  EXPECT_TRUE(grammar.ok()) << grammar.status().message();
  return grammar.ok() ? std::move(grammar).value() : nullptr;
}

TEST(Forms, SeveralValues) {
  const auto grammar = compile_forms(R"({"const": {"a": 1}})", {.several = true});
  for (const char* text : {R"({"a":1})", R"({"a":1};{"a":1})", R"({"a":1}; {"a":1}; {"a":1})",
                           "{\"a\":1};\n{\"a\":1}"}) {
    EXPECT_TRUE(accepts(grammar, text)) << text;
  }
  for (const char* text : {"", ";", R"({"a":1};)", R"({"a":1}{"a":1})", R"({"a":1},{"a":1})",
                           R"(; {"a":1})", R"({"a":1} ;{"a":1})"}) {
    EXPECT_FALSE(accepts(grammar, text)) << text;
  }
}

TEST(Forms, ValuesOfASchemaInside) {
  const GrammarForms forms = {.values = "#/x", .several = true, .other = "#/y"};
  const auto grammar = compile_forms(R"({"x": {"const": 1}, "y": {"const": [2]}})", forms);
  for (const char* text : {"1", "1;1", "[2]"}) EXPECT_TRUE(accepts(grammar, text)) << text;
  for (const char* text : {"", "2", "[2];1", "1;[2]", "[2];[2]"}) {
    EXPECT_FALSE(accepts(grammar, text)) << text;
  }
  const auto missing = Grammar::json_schema(Json::object(), small_vocabulary(), {}, forms);
  EXPECT_EQ(missing.status().code(), StatusCode::invalid_argument);
}

TEST(Forms, AnyTextThatIsNoObject) {
  const auto grammar = compile_forms(R"({"const": {"a": 1}})", {.text = true});
  for (const char* text : {"", " ", "a", "[{}]", "a {", "\n\"{\"", "\xC3\xA9", "a\xF0\x9F\x98\x80",
                           "\x01", R"({"a":1})"}) {
    EXPECT_TRUE(accepts(grammar, text)) << text;
  }
  for (const char* text : {"{", "{}", " {", "\r\n\t{\"a\":1}", R"({"a":1}b)", "\xC3", "a\xFF"}) {
    EXPECT_FALSE(accepts(grammar, text)) << text;
  }
}

TEST(Forms, TheEndIsKnown) {
  const auto one = compile_forms("{\"const\": 1}", {});
  const auto several = compile_forms("{\"const\": 1}", {.several = true});
  for (const auto& [grammar, ends] : {std::pair{one, true}, std::pair{several, false}}) {
    GrammarMatcher matcher(grammar);
    EXPECT_FALSE(matcher.can_end());
    ASSERT_TRUE(matcher.accept('1'));
    EXPECT_TRUE(matcher.can_end());
    EXPECT_EQ(matcher.must_end(), ends);
  }
}

}  // namespace
}  // namespace mobius
