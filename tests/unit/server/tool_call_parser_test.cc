#include "server/tools/tool_call_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "server/tools/python_call.h"
#include "tests/unit/tokenizer/fixtures.h"

namespace mobius {
namespace {

using nlohmann::json;

/// The small tokenizer, and <|python_tag|>.
const Tokenizer& tagged() {
  static const std::shared_ptr<const Tokenizer> tokenizer = [] {
    json file = small_tokenizer();
    json tag = file["added_tokens"].back();
    tag["id"] = tag["id"].get<int>() + 1;
    tag["content"] = "<|python_tag|>";
    file["added_tokens"].push_back(tag);
    return load_json(file);
  }();
  return *tokenizer;
}

constexpr std::string_view kTag = "<|python_tag|>";

struct Call {
  std::string name;
  std::string arguments;
  bool operator==(const Call&) const = default;
};

void PrintTo(const Call& call, std::ostream* out) {
  *out << call.name << '(' << call.arguments << ')';
}

struct Answer {
  std::string content;
  std::vector<Call> calls;

  void add(const AnswerDelta& delta) {
    content += delta.content;
    std::set<std::size_t> seen;
    for (const ToolCallDelta& call : delta.calls) {
      EXPECT_TRUE(seen.insert(call.index).second) << "one entry per call";
      if (!call.name.empty()) {
        EXPECT_EQ(call.index, calls.size());
        calls.push_back({call.name, ""});
      }
      ASSERT_EQ(call.index + 1, calls.size()) << "calls come one after the other";
      calls.back().arguments += call.arguments;
    }
  }
};

/// Parses `text`, which has <|python_tag|> where the token is, in pieces of `step` bytes.
Answer parse(std::string_view text, std::size_t step, bool several = true,
             std::vector<std::string> names = {"f", "g_2"}) {
  ToolCallParser parser(std::move(names), several, tagged());
  Answer answer;
  while (!text.empty()) {
    if (text.starts_with(kTag)) {
      answer.add(parser.push(*tagged().special(kTag), ""));
      text.remove_prefix(kTag.size());
      continue;
    }
    const std::string_view piece = text.substr(0, std::min(step, text.find(kTag)));
    answer.add(parser.push('x', piece));
    text.remove_prefix(piece.size());
  }
  answer.add(parser.finish(""));
  EXPECT_EQ(parser.calls(), answer.calls.size());
  return answer;
}

void check(std::string_view text, const std::string& content, const std::vector<Call>& calls,
           bool several = true, const std::vector<std::string>& names = {"f", "g_2"}) {
  for (const std::size_t step : {1, 2, 3, 7, 1000}) {
    const Answer answer = parse(text, step, several, names);
    EXPECT_EQ(answer.content, content) << text << " by " << step;
    EXPECT_EQ(answer.calls, calls) << text << " by " << step;
  }
}

TEST(ToolCallParser, OneCall) {
  check(R"({"name": "f", "parameters": {"city": "Paris"}})", "", {{"f", R"({"city": "Paris"})"}});
  check("\n {\n \"name\" : \"g_2\" ,\n \"parameters\" : { }\n }\n", "", {{"g_2", "{ }"}});
  check(R"({"name": "f", "arguments": {"a": [1, {"b": "}\"{"}], "c": "\\"}})", "",
        {{"f", R"({"a": [1, {"b": "}\"{"}], "c": "\\"})"}});
  check(R"({"type": "function", "name": "f", "parameters": {"a": null}})", "",
        {{"f", R"({"a": null})"}});
  check(R"({"type": "function", "function": {"name": "f", "parameters": {"a": 1}}})", "",
        {{"f", R"({"a": 1})"}});
  check(R"({"id": 12, "x": true, "name": "f", "parameters": {}})", "", {{"f", "{}"}});
  check(R"({"parameters": {"a": 1}, "name": "f"})", "", {{"f", R"({"a": 1})"}});
  check(R"({"name": "\u0066", "parameters": {"a": 1}})", "", {{"f", R"({"a": 1})"}});
}

TEST(ToolCallParser, ArgumentsThatAreNoObject) {
  check(R"({"name": "f"})", "", {{"f", "{}"}});
  check(R"({"name": "f", "parameters": null})", "", {{"f", "{}"}});
  check(R"({"name": "f", "parameters": "{\"a\": 1}"})", "", {{"f", R"({"a": 1})"}});
  check(R"({"name": "f", "parameters": "{\"a\": 1}"}; {"name": "g_2"})", "",
        {{"f", R"({"a": 1})"}, {"g_2", "{}"}});
}

TEST(ToolCallParser, SeveralCalls) {
  const std::string two =
      R"({"name": "f", "parameters": {"a": 1}}; {"name": "g_2", "parameters": {"b": 2}})";
  check(two, "", {{"f", R"({"a": 1})"}, {"g_2", R"({"b": 2})"}});
  check(two, "", {{"f", R"({"a": 1})"}}, /*several=*/false);
  check("{\"name\": \"f\"}\n{\"name\": \"f\"},{\"name\": \"f\"}{\"name\": \"f\"}", "",
        {{"f", "{}"}, {"f", "{}"}, {"f", "{}"}, {"f", "{}"}});
}

TEST(ToolCallParser, ContentStaysAsItIs) {
  for (const char* text : {"",
                           " ",
                           "Hello",
                           "  Hello {\"name\": \"f\"}",
                           "[1]",
                           "{",
                           "{}",
                           "{ }",
                           "{\"a\"",
                           "{\"a\": 1}",
                           R"({"name": "h", "parameters": {}})",
                           R"({"name": 1, "parameters": {}})",
                           R"({"name": ["f"]})",
                           R"({"name" "f"})",
                           R"({"name": "f" "parameters": {}})",
                           R"({"name": "f",})",
                           R"({"parameters": {"a": 1}})",
                           R"({"parameters": {"name": "f"}})",
                           R"({name: "f"})",
                           R"({"name": "f)",
                           R"({"name": "f")",
                           "{\"a\": [\"name\", \"f\"]} and text",
                           "\xC3\xA9{\"name\": \"f\"}"}) {
    check(text, text, {});
  }
}

TEST(ToolCallParser, TextBehindACall) {
  check(R"({"name": "f", "parameters": {}} done)", " done", {{"f", "{}"}});
  check(R"({"name": "f", "parameters": {}}})", "}", {{"f", "{}"}});
  check(R"({"name": "f", "parameters": {}}; {"x": 1})", R"(; {"x": 1})", {{"f", "{}"}});
  check(R"({"name": "f", "parameters": {}} done)", "", {{"f", "{}"}}, /*several=*/false);
  // What comes inside the object, where no member can be, is not part of the call either.
  check(R"({"name": "f", "parameters": {"a": 1} oops)", "oops", {{"f", R"({"a": 1})"}});
}

TEST(ToolCallParser, CutCallsKeepWhatThereIs) {
  check(R"({"name": "f", "parameters": {"a": "x)", "", {{"f", R"({"a": "x)"}});
  check(R"({"name": "f", "parameters": {"a": 1})", "", {{"f", R"({"a": 1})"}});
  check(R"({"name": "f", "parameters": {"a": 1}, "id)", "", {{"f", R"({"a": 1})"}});
}

TEST(ToolCallParser, BehindThePythonTag) {
  const std::string tag(kTag);
  check(tag + R"({"name": "f", "parameters": {"a": 1}})", "", {{"f", R"({"a": 1})"}});
  check("I look. " + tag + R"({"name": "f", "parameters": {}}; {"name": "g_2"})", "I look. ",
        {{"f", "{}"}, {"g_2", "{}"}});
  check(tag + R"x(f.call(query="a b", n=3, on=True, list=[1, "x)"]))x", "",
        {{"f", R"x({"query":"a b","n":3,"on":true,"list":[1,"x)"]})x"}});
  check(tag + "f.call()" + tag + "g_2.call(a='1')", "", {{"f", "{}"}, {"g_2", R"({"a":"1"})"}});
  check(tag + "print(1)\n", "print(1)\n", {});
  check(tag + "h.call(a=1)", "h.call(a=1)", {});
  check(tag + R"({"a": 1})", R"({"a": 1})", {});
  check(tag + "print({'a': \"b\"})\n", "",
        {{"code_interpreter", R"json({"code":"print({'a': \"b\"})"})json"}}, true,
        {"code_interpreter"});
  check(tag + R"x({"a": 1}.get("a"))x", "",
        {{"code_interpreter", R"x({"code":"{\"a\": 1}.get(\"a\")"})x"}}, true,
        {"code_interpreter"});
  check(tag + "f.call()" + tag + "f.call()", "", {{"f", "{}"}}, /*several=*/false);
  check(R"({"name": "f", "parameters": {"a)" + tag + R"({"name": "g_2"})", "",
        {{"f", R"({"a)"}, {"g_2", "{}"}});
}

TEST(ToolCallParser, NothingDependsOnTheCutAndNoTextIsLost) {
  const std::vector<std::string> pieces = {"{",
                                           "}",
                                           "\"",
                                           "name",
                                           "\"name\"",
                                           "\"f\"",
                                           ":",
                                           ",",
                                           ";",
                                           " ",
                                           "\n",
                                           "\\",
                                           "[",
                                           "]",
                                           "1",
                                           "null",
                                           "\"parameters\"",
                                           "{\"a\": 1}",
                                           "\"function\": {",
                                           "f.call(",
                                           ")",
                                           "a=1",
                                           "\xC3\xA9",
                                           std::string(kTag),
                                           R"({"name": "f", "parameters": {"x": [1, "}"]}})"};
  std::mt19937 random(7);
  for (int round = 0; round < 20'000; ++round) {
    std::string text = round % 3 == 0 ? R"({"name": "f", )" : "";
    for (std::size_t left = random() % 12; left > 0; --left) {
      text += pieces[random() % pieces.size()];
    }
    const bool several = round % 2 == 0;
    const Answer whole = parse(text, 1000, several);
    for (const std::size_t step : {1, 2, 5}) {
      const Answer cut = parse(text, step, several);
      ASSERT_EQ(cut.content, whole.content) << text;
      ASSERT_EQ(cut.calls, whole.calls) << text;
    }
    if (!whole.calls.empty()) continue;
    std::string shown = text;
    for (std::size_t at = 0; (at = shown.find(kTag)) != std::string::npos;) {
      shown.erase(at, kTag.size());
    }
    ASSERT_EQ(whole.content, shown) << text;
  }
}

TEST(ToolCallParser, ArgumentsGoOutAsTheyCome) {
  ToolCallParser parser({"f"}, true, tagged());
  EXPECT_TRUE(parser.push('x', R"({"name": "f", "parameters": )").empty());
  const AnswerDelta first = parser.push('x', R"({"a)");
  ASSERT_EQ(first.calls.size(), 1U);
  EXPECT_EQ(first.calls[0].name, "f");
  EXPECT_EQ(first.calls[0].arguments, R"({"a)");
  const AnswerDelta second = parser.push('x', R"(": 1)");
  ASSERT_EQ(second.calls.size(), 1U);
  EXPECT_EQ(second.calls[0].name, "");
  EXPECT_EQ(second.calls[0].arguments, R"(": 1)");
}

TEST(ToolCallParser, TextGoesOutAtOnce) {
  ToolCallParser parser({"f"}, true, tagged());
  EXPECT_EQ(parser.push('x', "H").content, "H");
  EXPECT_EQ(parser.push('x', "{").content, "{");
}

TEST(ToolCallParser, IdsNameAnswerChoiceAndCall) {
  EXPECT_EQ(tool_call_id("chatcmpl-12ab", 0, 0), "call_12ab_0_0");
  EXPECT_EQ(tool_call_id("chatcmpl-12ab", 1, 2), "call_12ab_1_2");
  EXPECT_EQ(tool_call_id("resp_12ab", 0, 0), "call_12ab_0_0");
}

TEST(PythonCall, Arguments) {
  const auto arguments = [](std::string_view text) {
    const auto call = parse_python_call(text);
    return call ? call->arguments : "none";
  };
  EXPECT_EQ(arguments("f.call()"), "{}");
  EXPECT_EQ(arguments("f.call( a = 1 , b=None )"), R"({"a":1,"b":null})");
  EXPECT_EQ(arguments(R"x(f.call(a='it\'s "x"', b="\\n\n\d"))x"),
            R"x({"a":"it's \"x\"","b":"\\n\n\\d"})x");
  EXPECT_EQ(arguments(R"x(f.call(a={"x": [1, ")"]}, b=False))x"),
            R"x({"a":{"x":[1,")"]},"b":false})x");
  EXPECT_EQ(arguments("f.call(a=1.5e3)"), R"({"a":1500.0})");
  for (const char* text :
       {"", "f", "f.call", "f.call(", "f.call(a)", "f.call(a=)", "f.call(a=1", "f.call(a=1,",
        "f.call(a=1,)", "f.call(a=x)", "f.call(a=\"x)", "f.call(a='x", "f.call(a=[1)",
        "f.call(a=1) b", ".call()", "f.run(a=1)", "f.call(a=\"x\"y)", "f.call(a=\"\\"}) {
    EXPECT_EQ(arguments(text), "none") << text;
  }
}

}  // namespace
}  // namespace mobius
