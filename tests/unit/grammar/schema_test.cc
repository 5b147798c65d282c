#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/unit/grammar/languages.h"

namespace mobius {
namespace {

struct Case {
  std::string schema;
  std::vector<std::string> in;
  std::vector<std::string> out;
};

void check(const Case& each) {
  const auto grammar = compile(each.schema);
  ASSERT_NE(grammar, nullptr);
  for (const std::string& text : each.in) {
    EXPECT_TRUE(accepts(grammar, text)) << each.schema << "\n"
                                        << text << "\n"
                                        << std::string(accepted_prefix(grammar, text), ' ') << "^";
  }
  for (const std::string& text : each.out) {
    EXPECT_FALSE(accepts(grammar, text)) << each.schema << "\n" << text;
  }
}

TEST(Schema, AnyValue) {
  for (const char* schema : {"{}", "true", R"({"title": "x", "description": "y", "default": 3})"}) {
    check({schema,
           {"1", "-0.5e+10", "\"\"", "true", "null", "[]", "{}", R"([1, {"a": [null]}])"},
           {"", "tru", "[1,]", "{\"a\"}", "01", "1.", ".5", "+1", "nan", "'a'", "[1 ,2]"}});
  }
}

TEST(Schema, Types) {
  check({R"({"type": "integer"})",
         {"0", "-1", "123456789012345678"},
         {"1.0", "1e3", "00", "\"1\"", "1234567890123456789"}});
  check({R"({"type": "number"})", {"0", "-1.5", "1E-9", "1e99"}, {"1e100", "true"}});
  check({R"({"type": "boolean"})", {"true", "false"}, {"True", "0"}});
  check({R"({"type": "null"})", {"null"}, {"", "0"}});
  check({R"({"type": ["string", "null"]})", {"\"\"", "null"}, {"1"}});
  check({R"({"type": ["integer", "number"]})", {"1", "1.5"}, {"null"}});
  check({R"({"type": "object"})", {"{}", R"({"a":1,"b":{}})"}, {"[]", "{,}"}});
  check({R"({"type": "array"})", {"[]", "[1,\"a\"]"}, {"{}"}});
}

TEST(Schema, StringsAreJson) {
  check({R"({"type": "string"})",
         {R"("a")", "\"\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80\"", R"("\"\\\/\b\f\n\r\t\u00e9")",
          R"("\uD83D\uDE00")", "\"\x7F\"", "\"\xED\x9F\xBF\""},
         {R"("a)", R"(a")", "\"\n\"", "\"\x01\"", R"("\x")", R"("\u12g4")", R"("\uD83D")",
          R"("\uD83Dx")", R"("\uDE00")", "\"\xC0\x80\"", "\"\xED\xA0\x80\"", "\"\xF4\x90\x80\x80\"",
          "\"\xE2\x82\"", "\"\x80\"", "\"\xFF\""}});
}

TEST(Schema, ObjectsKeepTheirOrderAndTheirRequired) {
  const std::string properties =
      R"("properties": {"a": {"type": "integer"}, "b": {"type": "null"}, "c": {"type": "boolean"}})";
  check({"{\"type\": \"object\", " + properties + R"(, "required": ["b"]})",
         {R"({"b":null})", R"({"a":1,"b":null})", R"({"b":null,"c":true})",
          "{ \"a\": 1, \"b\": null,\n  \"c\": true }", "{\n\t\"b\": null\n}"},
         {"{}", R"({"a":1})", R"({"b":null,"a":1})", R"({"b":1})", R"({"b":null,"x":1})",
          R"({"b":null,"b":null})", R"({"b":null,})", R"({"b" :null})"}});
  check({"{" + properties + "}",
         {"{}", R"({"a":1})", R"({"b":null,"c":false})", R"({"a":1,"c":true})"},
         {R"({"c":true,"a":1})", "1", "[]", "{ }"}});
  check({R"({"properties": {"\"\n\u00e9/": true}, "required": ["\"\n\u00e9/"]})",
         {"{\"\\\"\\n\xC3\xA9/\":1}"},
         {"{}"}});
}

TEST(Schema, OtherProperties) {
  const std::string names =
      R"("properties": {"ab": {"type": "null"}, "a\u00e9": {"type": "null"}})";
  check({"{" + names + R"(, "additionalProperties": {"type": "integer"}})",
         {"{}", R"({"ab":null})", R"({"ab":null,"x":1,"abc":2})", R"({"a":1})", R"({"":1})",
          "{\"a\xC3\xA8\":1}", "{\"\xC3\xA9\":1,\"b\":2}", "{\"a\xC3\xA9\xC3\xA9\":1}"},
         {R"({"ab":1})", R"({"x":null})", R"({"x":1,"ab":null})", "{\"a\xC3\xA9\":1}",
          R"({"\u0061b":1})", "{\"a\xC3\":1}"}});
  check({"{" + names + R"(, "additionalProperties": true})", {R"({"z":[{}]})"}, {R"({"ab":1})"}});
  check({"{" + names + R"(, "additionalProperties": false})", {R"({"ab":null})"}, {R"({"z":1})"}});
  check({R"({"type": "object", "additionalProperties": false})", {"{}"}, {R"({"a":1})"}});
  check({R"({"required": ["x"], "additionalProperties": {"type": "null"}})",
         {R"({"x":null})", R"({"x":null,"y":null})"},
         {"{}", R"({"x":1})"}});
}

TEST(Schema, Arrays) {
  check({R"({"items": {"type": "integer"}})", {"[]", "[1]", "[1,2, 3]"}, {"[true]", "[1,]"}});
  check({R"({"items": {"type": "integer"}, "minItems": 2, "maxItems": 3})",
         {"[1,2]", "[\n  1,\n  2,\n  3\n]"},
         {"[]", "[1]", "[1,2,3,4]"}});
  check({R"({"type": "array", "minItems": 1})", {"[null]", "[1,2,3]"}, {"[]"}});
  check({R"({"type": "array", "maxItems": 0})", {"[]"}, {"[1]"}});
  check(
      {R"({"prefixItems": [{"type": "integer"}, {"type": "null"}], "items": {"type": "boolean"}})",
       {"[]", "[1]", "[1,null]", "[1,null,true,false]"},
       {"[null]", "[1,true]", "[1,null,1]"}});
  check({R"({"prefixItems": [{"type": "integer"}, {"type": "null"}], "minItems": 2})",
         {"[1,null]"},
         {"[1]", "[1,null,1]"}});
  check({R"({"prefixItems": [{"type": "integer"}], "items": false})", {"[]", "[1]"}, {"[1,1]"}});
  check({R"({"prefixItems": [{"type": "integer"}], "minItems": 3, "uniqueItems": false})",
         {"[1,\"a\",{}]", "[1,1,1,1]"},
         {"[1,1]"}});
}

TEST(Schema, EnumAndConst) {
  check({R"({"enum": ["red", "re", 1, 1.5, null, {"a": [1, "\u00e9"]}]})",
         {"\"red\"", "\"re\"", "1", "1.5", "null", "{\"a\":[1,\"\xC3\xA9\"]}"},
         {"\"r\"", "\"reds\"", "2", "{\"a\": [1,\"\xC3\xA9\"]}"}});
  check({R"({"const": "a\"b"})", {R"("a\"b")"}, {R"("a")"}});
  check({R"({"type": "string", "enum": ["a", 1]})", {"\"a\""}, {"1"}});
  check({R"({"enum": ["a", "b"], "const": "b"})", {"\"b\""}, {"\"a\""}});
}

TEST(Schema, LengthsCountCharacters) {
  check({R"({"type": "string", "minLength": 2, "maxLength": 3})",
         {"\"ab\"", "\"\xF0\x9F\x98\x80\xC3\xA9z\"", R"("\uD83D\uDE00\n")"},
         {"\"a\"", "\"abcd\"", "\"\xF0\x9F\x98\x80\"", R"("\u0061")"}});
  check({R"({"type": "string", "minLength": 1})", {"\"a\"", "\"abcdef\""}, {"\"\""}});
  check({R"({"type": "string", "maxLength": 0})", {"\"\""}, {"\"a\""}});
}

TEST(Schema, References) {
  const auto tree = R"({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties":
      {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
      "required": ["value"]}}})";
  check({tree,
         {R"({"value":1})", R"({"value":1,"children":[{"value":2,"children":[]},{"value":3}]})"},
         {R"({"value":1,"children":[{}]})", R"({"value":1,"children":[1]})"}});
  check({R"({"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
            "required": ["next"]})",
         {R"({"next":null})", R"({"next":{"next":{"next":null}}})"},
         {R"({"next":{}})", R"({"next":1})"}});
  check({R"({"$ref": "#/definitions/a~1b%20c", "definitions": {"a/b c": {"type": "null"}}})",
         {"null"},
         {"1"}});
  check({R"({"properties": {"a": {"$ref": "#/$defs/n", "description": "x", "maximum": 5}},
            "required": ["a"], "$defs": {"n": {"type": "integer", "minimum": 3}}})",
         {R"({"a":3})", R"({"a":5})"},
         {R"({"a":2})", R"({"a":6})"}});
}

TEST(Schema, Combinations) {
  check({R"({"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "null"}}]})",
         {"1", "[null]"},
         {"\"a\"", "[1]"}});
  check({R"({"oneOf": [{"const": "a"}, {"const": "b"}]})", {"\"a\"", "\"b\""}, {"\"c\""}});
  check({R"({"anyOf": [{"properties": {"k": {"const": 1}, "a": {"type": "null"}},
                        "required": ["k", "a"]},
                       {"properties": {"k": {"const": 12}, "b": {"type": "null"}},
                        "required": ["k", "b"]}]})",
         {R"({"k":1,"a":null})", R"({"k":12,"b":null})"},
         {R"({"k":1,"b":null})", R"({"k":12,"a":null})"}});
  check({R"({"type": "integer", "anyOf": [{"maximum": -5}, {"minimum": 5}]})",
         {"-5", "5", "-77"},
         {"0", "4", "5.5"}});
  check({R"({"allOf": [{"type": "integer", "minimum": 2}, {"type": "number", "maximum": 9}]})",
         {"2", "9"},
         {"1", "10", "2.5"}});
  check({R"({"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                       {"$ref": "#/$defs/b"}], "$defs": {"b": {"allOf": [{"properties":
             {"a": {"maximum": 3}, "b": {"type": "null"}}, "required": ["b"]}]}}})",
         {R"({"a":3,"b":null})"},
         {R"({"a":4,"b":null})", R"({"a":3})"}});
  check({R"({"allOf": [{"anyOf": [{"const": 1}, {"const": 2}, {"const": 3}]},
                       {"anyOf": [{"const": 2}, {"const": 3}]}, {"enum": [1, 3]}]})",
         {"3"},
         {"1", "2"}});
  // A branch that nothing meets is no way out.
  check({R"({"anyOf": [false, {"allOf": [{"type": "null"}, {"type": "string"}]}, {"const": 7}]})",
         {"7"},
         {"null", "\"\""}});
}

TEST(Schema, NothingFollowsTheValueAndWhitespaceIsBounded) {
  const auto grammar = compile(R"({"type": "object"})");
  EXPECT_FALSE(accepts(grammar, "{} "));
  EXPECT_FALSE(accepts(grammar, " {}"));
  EXPECT_FALSE(accepts(grammar, R"({  "a":1})"));
  EXPECT_FALSE(accepts(grammar, "{\n\n\"a\":1}"));
  EXPECT_TRUE(accepts(grammar, "{\n" + std::string(32, ' ') + "\"a\":1}"));
  EXPECT_FALSE(accepts(grammar, "{\n" + std::string(33, ' ') + "\"a\":1}"));
}

TEST(JsonObject, IsAnyObjectAndNothingElse) {
  const auto grammar = Grammar::json_object(small_vocabulary());
  EXPECT_TRUE(accepts(grammar, "{}"));
  EXPECT_TRUE(accepts(grammar, "{\"a\": [1, {\"b\": \"\xC3\xA9\"}], \"c\": null}"));
  for (const char* text : {"[]", "1", "\"{}\"", "", "{", "{}{}"}) {
    EXPECT_FALSE(accepts(grammar, text)) << text;
  }
}

}  // namespace
}  // namespace mobius
