#include "server/python_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace mobius {
namespace {

using ::testing::HasSubstr;

std::string one_line(std::string_view json) {
  const StatusOr<std::string> out = python_json_object(json, 0);
  return out.ok() ? out.value() : "error: " + out.status().message();
}

// What Python 3 prints for json.dumps(json.loads(text), ensure_ascii=False).
TEST(PythonJson, SpellsNumbersAsPython) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"0", "0"},
      {"-0", "0"},
      {"-17", "-17"},
      {"18446744073709551615", "18446744073709551615"},
      {"-9223372036854775809", "-9223372036854775809"},
      {"123456789012345678901234567890", "123456789012345678901234567890"},
      {"0.0", "0.0"},
      {"-0.0", "-0.0"},
      {"1.0", "1.0"},
      {"1.50", "1.5"},
      {"1e5", "100000.0"},
      {"1E+2", "100.0"},
      {"1e15", "1000000000000000.0"},
      {"1e16", "1e+16"},
      {"123456789012345680.0", "1.2345678901234568e+17"},
      {"1.5e300", "1.5e+300"},
      {"0.0001", "0.0001"},
      {"0.00012345", "0.00012345"},
      {"0.00001", "1e-05"},
      {"0.000012345", "1.2345e-05"},
      {"5e-324", "5e-324"},
      {"1e-999", "0.0"},
      {"0.1", "0.1"},
      {"0.30000000000000004", "0.30000000000000004"},
      {"12345678.9", "12345678.9"},
      {"1.7976931348623157e308", "1.7976931348623157e+308"},
  };
  for (const auto& [in, out] : cases) {
    std::string json = "{\"n\":";
    json += in;
    json += '}';
    std::string expected = "{\"n\": ";
    expected += out;
    expected += '}';
    EXPECT_EQ(one_line(json), expected);
  }
}

TEST(PythonJson, EscapesNoMoreThanPython) {
  EXPECT_EQ(one_line(R"({"k": "\u00e9\ud83d\ude42\/\u007f\u0000\u001F\b\f\n\r\t\"\\ <&>'"})"),
            "{\"k\": \"\u00E9\U0001F642/\x7F\\u0000\\u001f\\b\\f\\n\\r\\t\\\"\\\\ <&>'\"}");
  EXPECT_EQ(python_json_string("a\"b\\\n\x01\u00E9"), "\"a\\\"b\\\\\\n\\u0001\u00E9\"");
  EXPECT_EQ(python_json_string(""), "\"\"");
}

TEST(PythonJson, KeepsTheOrderOfKeysAndTheLastValueOfARepeatedOne) {
  EXPECT_EQ(one_line(R"({"b":1,"a":[true,false,null],"b":{"x":{}},"":[]})"),
            R"({"b": {"x": {}}, "a": [true, false, null], "": []})");
  EXPECT_EQ(one_line(R"({"a":{"p":1},"a":{"q":2},"c":3})"), R"({"a": {"q": 2}, "c": 3})");
}

TEST(PythonJson, Indents) {
  const StatusOr<std::string> out =
      python_json_object(R"({"a":{},"b":[],"c":[1,{"d":2}],"e":"x"})", 4);
  ASSERT_TRUE(out.ok());
  EXPECT_EQ(out.value(), R"({
    "a": {},
    "b": [],
    "c": [
        1,
        {
            "d": 2
        }
    ],
    "e": "x"
})");
  EXPECT_EQ(python_json_object("{}", 4).value(), "{}");
}

TEST(PythonJson, RefusesWhatIsNotAnObject) {
  for (const char* text : {"", "{", "{\"a\":}", "{'a':1}", "{\"a\":NaN}", "{\"a\":01}", "{}x",
                           "{\"a\":\"\\ud800\"}", "{\"a\":1e400}", "{\"a\":-1e400}"}) {
    EXPECT_THAT(one_line(text), HasSubstr("error: is not valid JSON: ")) << text;
  }
  for (const char* text : {"[]", "1", "null", "\"x\""}) {
    EXPECT_EQ(one_line(text), "error: is not a JSON object") << text;
  }
}

TEST(PythonJson, TakesTwoHundredLevelsAndNoMore) {
  const auto nested = [](std::size_t levels) {
    std::string out = "{\"a\": ";
    out.append(levels - 1, '[').append(levels - 1, ']');
    return out += '}';
  };
  EXPECT_EQ(one_line(nested(200)), nested(200));
  EXPECT_THAT(one_line(nested(201)), HasSubstr("nested deeper than 200 levels"));
  EXPECT_THAT(one_line(nested(1'000'000)), HasSubstr("nested deeper than 200 levels"));
}

}  // namespace
}  // namespace mobius
