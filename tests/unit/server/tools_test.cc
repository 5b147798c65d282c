#include "server/tools/tools.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "server/grammar_cache.h"
#include "tests/unit/tokenizer/fixtures.h"

namespace mobius {
namespace {

using testing::HasSubstr;
using Kind = ToolChoice::Kind;
using Strings = std::vector<std::string>;

std::string definition(const std::string& name, const std::string& parameters,
                       bool strict = false) {
  return R"({"type": "function", "function": {"name": ")" + name + R"(", "parameters": )" +
         parameters + R"(, "strict": )" + (strict ? "true" : "false") + "}}";
}

const std::string kCity =
    R"({"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]})";
const std::string kAmount =
    R"({"$defs": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}, "type": "object",
        "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"]})";
// Beyond what grammars know.
const std::string kUnknown = R"({"type": "object", "minProperties": 2})";

const Tokenizer& small() {
  static const std::shared_ptr<const Tokenizer> tokenizer = load_json(small_tokenizer());
  return *tokenizer;
}

struct Asked {
  Strings tools = {};
  ToolChoice choice = {};
  bool parallel = true;
  ResponseFormat format = {};
};

StatusOr<std::shared_ptr<const Grammar>> grammar_of(const Asked& asked) {
  static GrammarCache cache(small());
  auto tools = read_tools(asked.tools);
  EXPECT_TRUE(tools.ok()) << tools.status().message();
  return cache.get(tools.value(), asked.choice, asked.parallel, asked.format);
}

bool accepts(const Asked& asked, const std::string& text) {
  const auto grammar = grammar_of(asked);
  EXPECT_TRUE(grammar.ok()) << grammar.status().message();
  GrammarMatcher matcher(grammar.value());
  for (const char c : text) {
    if (!matcher.accept(static_cast<unsigned char>(c))) return false;
  }
  return matcher.can_end();
}

TEST(ReadTools, WhatADefinitionSays) {
  const auto tools =
      read_tools(Strings{definition("f", kCity, true), R"({"name": "g-2"})",
                         R"({"type": "function", "function": {"name": "h", "parameters": {},
                                            "description": "d", "strict": null}})"});
  ASSERT_TRUE(tools.ok()) << tools.status().message();
  ASSERT_EQ(tools.value().size(), 3U);
  EXPECT_EQ(tools.value()[0].name, "f");
  EXPECT_TRUE(tools.value()[0].strict);
  EXPECT_THAT(tools.value()[0].parameters, HasSubstr("Rome"));
  EXPECT_EQ(tools.value()[1].name, "g-2");
  EXPECT_THAT(tools.value()[1].parameters, HasSubstr(R"("additionalProperties":false)"));
  EXPECT_EQ(tools.value()[2].parameters, kAnyArguments);
  EXPECT_FALSE(tools.value()[2].strict);
}

TEST(ReadTools, Refusals) {
  struct Case {
    std::string tool;
    std::string field;
    std::string words;
  };
  const std::vector<Case> cases = {
      {"x", "tools[1]", "not valid JSON"},
      {"[]", "tools[1]", "is not a JSON object"},
      {"{}", "tools[1].name", "is missing"},
      {R"({"function": {}})", "tools[1].function.name", "is missing"},
      {R"({"function": {"name": "a b"}})", "tools[1].function.name", "is \"a b\"; must be 1 to 64"},
      {R"({"function": {"name": 1}})", "tools[1].function.name", "is 1"},
      {R"({"function": {"name": ")" + std::string(65, 'a') + "\"}}", "tools[1].function.name",
       "64"},
      {definition("g", "[]"), "tools[1].function.parameters", "is an array; must be an object"},
      {definition("g", R"({"type": "string"})"), "tools[1].function.parameters.type",
       "must be \"object\""},
      {R"({"function": {"name": "g", "strict": 1}})", "tools[1].function.strict",
       "must be a boolean"},
      {definition("f", "{}"), "tools[1]", "has the name of another tool, \"f\""},
  };
  for (const Case& each : cases) {
    const auto tools = read_tools(Strings{definition("f", "{}"), each.tool});
    ASSERT_FALSE(tools.ok()) << each.tool;
    EXPECT_EQ(tools.status().code(), StatusCode::invalid_argument);
    EXPECT_EQ(tools.status().field(), each.field);
    EXPECT_THAT(tools.status().message(), testing::StartsWith(each.field));
    EXPECT_THAT(tools.status().message(), HasSubstr(each.words));
  }
  EXPECT_EQ(read_tools(Strings(129, definition("f", "{}"))).status().field(), "tools");
}

TEST(CallGrammar, NothingToKeepWhereNothingMust) {
  const auto grammar = grammar_of({.tools = {definition("f", kCity)}});
  ASSERT_TRUE(grammar.ok());
  EXPECT_EQ(grammar.value(), nullptr);
  EXPECT_EQ(grammar_of({}).value(), nullptr);
}

TEST(CallGrammar, RequiredCalls) {
  const Asked asked = {.tools = {definition("f", kCity), definition("g", kAmount)},
                       .choice = {.kind = Kind::required}};
  const std::string f = R"({"name": "f", "parameters": {"city": "Rome"}})";
  const std::string g = R"({"name":"g","parameters":{"n":7}})";
  for (const std::string& text : {f, g, f + "; " + g, g + ";" + g + ";\n" + f}) {
    EXPECT_TRUE(accepts(asked, text)) << text;
  }
  for (const std::string& text :
       {std::string(), std::string("text"), std::string("{}"), f + f, f + "; ", '[' + f + ']',
        std::string(R"({"name": "f", "parameters": {"n": 7}})"),
        std::string(R"({"name": "f", "parameters": {}})"),
        std::string(R"({"name": "g", "parameters": {"n": 10}})"),
        std::string(R"({"name": "h", "parameters": {}})"),
        std::string(R"({"parameters": {"city": "Rome"}, "name": "f"})")}) {
    EXPECT_FALSE(accepts(asked, text)) << text;
  }
  Asked one = asked;
  one.parallel = false;
  EXPECT_TRUE(accepts(one, f));
  EXPECT_FALSE(accepts(one, f + "; " + g));
}

TEST(CallGrammar, TheNamedToolOnce) {
  const Asked asked = {.tools = {definition("f", kCity), definition("g", kAmount)},
                       .choice = {.kind = Kind::named, .name = "g"}};
  EXPECT_TRUE(accepts(asked, R"({"name": "g", "parameters": {"n": 0}})"));
  EXPECT_FALSE(accepts(asked, R"({"name": "f", "parameters": {"city": "Rome"}})"));
  EXPECT_FALSE(
      accepts(asked, R"({"name":"g","parameters":{"n":0}}; {"name":"g","parameters":{"n":0}})"));
}

TEST(CallGrammar, StrictToolsBesideText) {
  const Asked asked = {.tools = {definition("f", kCity, true), definition("g", kAmount)}};
  for (const char* text : {"", "Hello {}", " {", R"({"name": "f", "parameters": {"city": "Oslo"}})",
                           R"({"name": "g", "parameters": {"any": ["thing"]}})"}) {
    EXPECT_EQ(accepts(asked, text), std::string_view(text) != " {") << text;
  }
  EXPECT_FALSE(accepts(asked, R"({"name": "f", "parameters": {"city": "Bonn"}})"));
}

TEST(CallGrammar, AFormatBesideTools) {
  Asked asked = {.tools = {definition("f", kAmount)}};
  asked.format = {.kind = ResponseFormat::Kind::json_schema,
                  .schema = R"({"$defs": {"b": {"type": "boolean"}}, "type": "object",
                                "properties": {"yes": {"$ref": "#/$defs/b"}}, "required": ["yes"]})"};
  EXPECT_TRUE(accepts(asked, R"({"yes": true})"));
  EXPECT_TRUE(accepts(asked, R"({"name": "f", "parameters": {}})"));
  EXPECT_FALSE(accepts(asked, "Hello"));
  EXPECT_FALSE(accepts(asked, R"({"yes": true}; {"yes": true})"));
  asked.format = {ResponseFormat::Kind::json_object, {}};
  EXPECT_TRUE(accepts(asked, R"({"a": 1})"));
  // A forced call leaves no room for an answer.
  asked.choice.kind = Kind::required;
  EXPECT_FALSE(accepts(asked, R"({"a": 1})"));
  asked.choice.kind = Kind::automatic;
  asked.format = {.kind = ResponseFormat::Kind::json_schema, .schema = R"({"not": {}})"};
  EXPECT_EQ(grammar_of(asked).status().field(), "response_format.schema");
  asked.format.schema = "{";
  EXPECT_EQ(grammar_of(asked).status().field(), "response_format.schema");
}

TEST(CallGrammar, ReferencesPointIntoTheirOwnSchema) {
  const std::string tree =
      R"({"type": "object", "properties": {"$ref": {"const": "#/x"}, "next": {"$ref": "#"}},
          "required": ["$ref"]})";
  const Asked asked = {.tools = {definition("f", kAmount), definition("t", tree)},
                       .choice = {.kind = Kind::required}};
  EXPECT_TRUE(
      accepts(asked, R"({"name": "t", "parameters": {"$ref": "#/x", "next": {"$ref": "#/x"}}})"));
  EXPECT_FALSE(accepts(asked, R"({"name": "t", "parameters": {"$ref": "#/x", "next": {}}})"));
}

TEST(CallGrammar, SchemasBeyondGrammars) {
  Asked asked = {.tools = {definition("f", kCity), definition("u", kUnknown)},
                 .choice = {.kind = Kind::required}};
  EXPECT_TRUE(accepts(asked, R"({"name": "u", "parameters": {"a": 1}})")) << "any object";
  EXPECT_FALSE(accepts(asked, R"({"name": "u", "parameters": 1})"));
  EXPECT_FALSE(accepts(asked, R"({"name": "f", "parameters": {}})")) << "others keep theirs";
  asked.tools[1] = definition("u", kUnknown, true);
  const Status status = grammar_of(asked).status();
  EXPECT_EQ(status.code(), StatusCode::invalid_argument);
  EXPECT_EQ(status.field(), "tools[1].function.parameters");
  EXPECT_THAT(status.message(), HasSubstr("tools[1].function.parameters at #: \"minProperties\""));
}

TEST(CallGrammar, ChoicesThatCannotBeMet) {
  const Strings tools = {definition("f", kCity)};
  EXPECT_EQ(grammar_of({.choice = {.kind = Kind::required}}).status().field(), "tool_choice");
  const Status status = grammar_of({.tools = tools, .choice = {Kind::named, "g"}}).status();
  EXPECT_EQ(status.field(), "tool_choice");
  EXPECT_THAT(status.message(), HasSubstr("names \"g\", which is none of the tools"));
}

}  // namespace
}  // namespace mobius
