#include <gtest/gtest.h>

#include <string>

#include "tests/unit/grammar/languages.h"

namespace mobius {
namespace {

using ::testing::Test;

void expect_refusal(const std::string& schema, const std::string& message) {
  const std::string found = refusal(schema);
  EXPECT_NE(found.find(message), std::string::npos)
      << schema << "\nwanted: " << message << "\nfound:  " << found;
}

TEST(Refusal, EveryKeywordThatIsNotSupportedIsNamedWithItsPlace) {
  for (const char* keyword : {"not",
                              "if",
                              "then",
                              "else",
                              "dependentRequired",
                              "dependentSchemas",
                              "patternProperties",
                              "propertyNames",
                              "minProperties",
                              "maxProperties",
                              "contains",
                              "minContains",
                              "maxContains",
                              "unevaluatedItems",
                              "unevaluatedProperties",
                              "$anchor",
                              "$dynamicRef",
                              "$dynamicAnchor",
                              "contentSchema",
                              "additionalItems",
                              "nullable",
                              "made-up"}) {
    const std::string name = std::string("\"").append(keyword).append("\"");
    expect_refusal("{" + name + ": 1}", "schema at #: " + name + " is not supported");
    expect_refusal(R"({"properties": {"a/b": {"items": {)" + name + ": 1}}}}",
                   "schema at #/properties/a~1b/items: " + name + " is not supported");
  }
}

TEST(Refusal, PlacesOfNestedSchemas) {
  const std::string bad = R"({"not": {}})";
  expect_refusal(R"({"anyOf": [{}, )" + bad + "]}", "schema at #/anyOf/1: ");
  expect_refusal(R"({"oneOf": [)" + bad + "]}", "schema at #/oneOf/0: ");
  expect_refusal(R"({"allOf": [)" + bad + "]}", "schema at #/allOf/0: ");
  expect_refusal(R"({"prefixItems": [)" + bad + "]}", "schema at #/prefixItems/0: ");
  expect_refusal(R"({"additionalProperties": )" + bad + "}", "schema at #/additionalProperties: ");
  expect_refusal(R"({"items": {"$ref": "#/$defs/x"}, "$defs": {"x": )" + bad + "}}",
                 "schema at #/$defs/x: ");
}

TEST(Refusal, ValuesOfTheWrongKind) {
  expect_refusal("3", "schema at #: is not an object or a boolean");
  expect_refusal(R"({"items": 3})", "schema at #/items: is not an object or a boolean");
  expect_refusal(R"({"type": "int"})", "\"type\" is \"int\", must be null, boolean");
  expect_refusal(R"({"type": 3})", "\"type\" is 3");
  expect_refusal(R"({"type": ["string", 3]})", "\"type\" is 3");
  expect_refusal(R"({"enum": []})", "\"enum\" is []");
  expect_refusal(R"({"enum": 1})", "\"enum\" is 1");
  expect_refusal(R"({"anyOf": []})", "\"anyOf\" is []");
  expect_refusal(R"({"allOf": {}})", "\"allOf\" is {}");
  expect_refusal(R"({"properties": []})", "\"properties\" is []");
  expect_refusal(R"({"required": "a"})", "\"required\" is \"a\"");
  expect_refusal(R"({"required": [1]})", "\"required\" is 1");
  expect_refusal(R"({"prefixItems": {}})", "\"prefixItems\" is {}");
  expect_refusal(R"({"pattern": 1})", "\"pattern\" is 1");
  expect_refusal(R"({"minLength": -1})", "\"minLength\" is -1, must be a whole number from 0");
  expect_refusal(R"({"maxLength": 10001})", "\"maxLength\" is 10001, must be");
  expect_refusal(R"({"minItems": 1.5})", "\"minItems\" is 1.5");
  expect_refusal(R"({"maxItems": "3"})", "\"maxItems\" is \"3\"");
  expect_refusal(R"({"minItems": 3, "maxItems": 2})", "\"maxItems\" is 2, must be at least");
  expect_refusal(R"({"minLength": 3, "maxLength": 2})", "\"maxLength\" is 2, must be at least");
  expect_refusal(R"({"uniqueItems": true})", "\"uniqueItems\" is true");
  expect_refusal(R"({"minimum": "1"})", "\"minimum\" is \"1\"");
  expect_refusal(R"({"minimum": 1e18})", "\"minimum\" is 1e+18, must be");
  expect_refusal(R"({"maximum": 1e-18})", "\"maximum\" is 1e-18, must be");
  expect_refusal(R"({"multipleOf": 0})", "\"multipleOf\" is 0");
  expect_refusal(R"({"multipleOf": 0.3})", "\"multipleOf\" is 0.3");
  expect_refusal(R"({"format": "uri"})", "\"format\" is \"uri\", must be one of date-time");
  expect_refusal(R"({"format": "date", "pattern": "a"})", "\"pattern\" beside \"format\"");
  expect_refusal(R"({"enum": ["a"], "minLength": 1})", "\"minLength\" beside \"enum\"");
  expect_refusal(R"({"properties": {}, "required": ["a"], "additionalProperties": false})",
                 "\"required\" names \"a\"");
  expect_refusal(R"({"allOf": [{"pattern": "a"}, {"pattern": "b"}]})", "\"pattern\" cannot be");
  expect_refusal(R"({"allOf": [{"properties": {"a": {}}, "additionalProperties": false},
                               {"properties": {"b": {}}}]})",
                 "\"additionalProperties\" cannot be");
}

TEST(Refusal, ReferencesThatLeadNowhere) {
  expect_refusal(R"({"$ref": "#/$defs/a"})", "\"$ref\" is \"#/$defs/a\", which is not in");
  expect_refusal(R"({"$ref": "other.json"})", "\"$ref\" is \"other.json\", must point into");
  expect_refusal(R"({"$ref": 1})", "\"$ref\" is 1");
  expect_refusal(R"({"$ref": "#a"})", "\"$ref\" is \"#a\"");
  expect_refusal(R"({"$ref": "#/~2"})", "\"$ref\" is \"#/~2\"");
}

TEST(Refusal, CirclesWithoutProgress) {
  expect_refusal(R"({"$ref": "#"})", "no value that is finite");
  expect_refusal(R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"},
                     "b": {"$ref": "#/$defs/a"}}})",
                 "no value that is finite");
  expect_refusal(R"({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"},
                     {"type": "null"}]}}})",
                 "schema at #/$defs/a: refers to itself");
  expect_refusal(R"({"type": "object", "allOf": [{"$ref": "#"}]})", "refers to itself");
  expect_refusal(R"({"type": "object", "anyOf": [{"$ref": "#"}, {"required": ["a"]}]})",
                 "refers to itself");
  // Every value has one of its own kind inside.
  expect_refusal(R"({"properties": {"a": {"$ref": "#"}}, "required": ["a"]})",
                 "no value that is finite");
  expect_refusal("false", "no value that is finite");
  expect_refusal(R"({"type": "integer", "minimum": 3, "maximum": 2})", "no value that is finite");
  expect_refusal(R"({"type": "string", "pattern": "^[]$"})", "no value that is finite");
  // Where there is another way, the circle is just not taken.
  EXPECT_EQ(refusal(R"({"properties": {"a": {"$ref": "#"}}})"), "");
}

TEST(Refusal, Limits) {
  std::string deep = "{}";
  for (int i = 0; i < 70; ++i) deep = std::string(R"({"items": )").append(deep).append("}");
  expect_refusal(deep, "is nested more than 64 deep");

  std::string wide = R"({"properties": {)";
  for (int i = 0; i < 10'001; ++i) {
    wide += std::string(i > 0 ? ", \"" : "\"").append(std::to_string(i)) + "\": {}";
  }
  expect_refusal(wide + "}}", "has more than 10000 parts");

  SchemaLimits small;
  small.states = 2000;
  EXPECT_NE(refusal(R"({"items": {"maxItems": 2000, "items": {"type": "null"}}})", small)
                .find("automaton of more than 2000 states"),
            std::string::npos);
  EXPECT_NE(refusal(std::string(R"({"enum": [")").append(3000, 'a') + "\"]}", small)
                .find("\"enum\" has 3002 bytes"),
            std::string::npos);
  EXPECT_NE(
      refusal(R"({"pattern": "^(ab){3}$", "maxLength": 1000})", small).find("\"pattern\" with"),
      std::string::npos);
  expect_refusal(R"({"pattern": "(a{1000}){1000}"})",
                 "needs an automaton of more than 4000 states");
  // Two to the power of n states for those who determinise it.
  expect_refusal(R"({"pattern": "a.{30}$"})", "needs an automaton of more than 4000 states");
}

TEST(Refusal, CombinationsThatMultiplyAreBounded) {
  // 2^20 ways to choose.
  std::string schema = R"({"allOf": [)";
  for (int i = 0; i < 20; ++i) {
    schema += std::string(i > 0 ? ", " : "") + R"({"anyOf": [{"minimum": 0}, {"maximum": 100}]})";
  }
  expect_refusal(schema + "]}", "has more than 10000 parts");
}

TEST(Refusal, ChainsOfReferencesCostNoStack) {
  std::string schema = R"({"$ref": "#/$defs/0", "$defs": {)";
  for (int i = 0; i < 5000; ++i) {
    schema.append("\"").append(std::to_string(i));
    schema.append(R"(": {"$ref": "#/$defs/)").append(std::to_string(i + 1)).append("\"}, ");
  }
  const auto grammar = compile(schema + R"("5000": {"const": 1}}})");
  EXPECT_TRUE(accepts(grammar, "1"));
}

}  // namespace
}  // namespace mobius
