#include "server/http/openai_response.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "server/http/http_status.h"
#include "tests/unit/engine/support.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;

AnswerHead make_head(bool chat, bool logprobs = false, bool include_usage = false) {
  static const std::shared_ptr<const Tokenizer> tokenizer = byte_tokenizer();
  return {.chat = chat,
          .id = "id-1",
          .created = 123,
          .model = "m",
          .seeds = {42},
          .n = 1,
          .include_usage = include_usage,
          .logprobs = logprobs,
          .echo = {},
          .tool_names = {},
          .parallel_tool_calls = true,
          .response_members = {},
          .tokenizer = tokenizer.get()};
}

TokenDelta make_delta(std::int32_t token, std::string text) {
  return {.token = {.token = token, .logprob = -0.5F, .top = {{token, -0.5F}, {0xC3, -1.5F}}},
          .text = std::move(text)};
}

Finish make_finish(FinishReason reason = FinishReason::length) {
  Finish finish;
  finish.reason = reason;
  finish.usage = {.prompt_tokens = 10, .cached_tokens = 4, .completion_tokens = 2};
  finish.timing = {.queued = std::chrono::milliseconds(1),
                   .first_token = std::chrono::microseconds(2500),
                   .total = std::chrono::milliseconds(9)};
  finish.prefill_reads = {3, 30};
  finish.decode_reads = {2, 20};
  return finish;
}

Json whole_answer(const AnswerHead& head, const std::vector<TokenDelta>& tokens,
                  const Finish& finish) {
  AnswerWriter writer(head);
  for (const TokenDelta& token : tokens) writer.token(0, token);
  writer.finish(0, finish);
  return Json::parse(writer.text());
}

/// The JSON of each event; checks the framing.
std::vector<std::string> events_of(std::string_view stream) {
  std::vector<std::string> events;
  while (!stream.empty()) {
    const std::size_t end = stream.find("\n\n");
    EXPECT_TRUE(stream.starts_with("data: "));
    EXPECT_NE(end, std::string_view::npos);
    events.emplace_back(stream.substr(6, end - 6));
    EXPECT_EQ(events.back().find('\n'), std::string::npos);
    stream.remove_prefix(end + 2);
  }
  return events;
}

TEST(StreamWriter, ChatStream) {
  StreamWriter writer(make_head(/*chat=*/true));
  const Json begin = Json::parse(events_of(writer.begin()).at(0));
  EXPECT_EQ(begin["object"], "chat.completion.chunk");
  EXPECT_EQ(begin["id"], "id-1");
  EXPECT_EQ(begin["created"], 123);
  EXPECT_EQ(begin["choices"][0]["delta"], (Json{{"role", "assistant"}, {"content", ""}}));

  const Json token = Json::parse(events_of(writer.token(0, make_delta('a', "a\n\"")))[0]);
  EXPECT_EQ(token["choices"][0]["delta"]["content"], "a\n\"");
  EXPECT_TRUE(token["choices"][0]["logprobs"].is_null());
  EXPECT_EQ(writer.token(0, make_delta('a', "")), "") << "nothing to show";

  const auto last = events_of(writer.finish(0, make_finish()));
  ASSERT_EQ(last.size(), 2U);
  const Json finish = Json::parse(last[0]);
  EXPECT_EQ(finish["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(finish["mobius"]["seed"], 42);
  EXPECT_EQ(finish["mobius"]["ttft_ms"], 2.5);
  EXPECT_EQ(finish["mobius"]["prefill_blocks"], (Json{{"read", 3}, {"total", 30}}));
  EXPECT_FALSE(finish.contains("usage"));
  EXPECT_EQ(last[1], "[DONE]");
}

TEST(StreamWriter, UsageIsAChunkOfItsOwn) {
  StreamWriter writer(make_head(true, false, /*include_usage=*/true));
  const auto last = events_of(writer.finish(0, make_finish(FinishReason::stop)));
  ASSERT_EQ(last.size(), 3U);
  EXPECT_EQ(Json::parse(last[0])["choices"][0]["finish_reason"], "stop");
  EXPECT_TRUE(Json::parse(last[0]).at("usage").is_null());
  const Json usage = Json::parse(last[1]);
  EXPECT_EQ(usage["choices"], Json::array());
  EXPECT_EQ(usage["usage"]["prompt_tokens"], 10);
  EXPECT_EQ(usage["usage"]["total_tokens"], 12);
  EXPECT_EQ(usage["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
  EXPECT_TRUE(usage.contains("mobius"));
}

TEST(StreamWriter, HeldBackTextComesBeforeTheEnd) {
  StreamWriter writer(make_head(false));
  Finish finish = make_finish();
  finish.text = "rest";
  const auto last = events_of(writer.finish(0, finish));
  ASSERT_EQ(last.size(), 3U);
  EXPECT_EQ(Json::parse(last[0])["choices"][0]["text"], "rest");
  EXPECT_EQ(Json::parse(last[1])["choices"][0]["text"], "");
}

TEST(StreamWriter, Progress) {
  const StreamWriter writer(make_head(true));
  const Json progress = Json::parse(
      events_of(writer.progress(0, {.total = 9, .cached = 1, .done = 5, .seconds_left = 0.5}))
          .at(0));
  EXPECT_EQ(progress["choices"], Json::array());
  EXPECT_EQ(progress["mobius"]["progress"],
            (Json{{"total", 9}, {"cached", 1}, {"done", 5}, {"seconds_left", 0.5}}));
}

TEST(StreamWriter, FailureEndsTheStreamWithTheError) {
  StreamWriter writer(make_head(true));
  Finish finish = make_finish(FinishReason::error);
  finish.status = Status(StatusCode::deadline_exceeded, "too late");
  const auto last = events_of(writer.finish(0, finish));
  ASSERT_EQ(last.size(), 2U);
  EXPECT_EQ(Json::parse(last[0])["error"]["code"], "deadline_exceeded");
  EXPECT_EQ(last[1], "[DONE]");
}

TEST(StreamWriter, LogprobsOfBytesThatAreNoText) {
  StreamWriter writer(make_head(true, /*logprobs=*/true));
  // Half a character: no text yet, but the token is reported.
  const Json token = Json::parse(events_of(writer.token(0, make_delta(0xC3, ""))).at(0));
  const Json entry = token["choices"][0]["logprobs"]["content"][0];
  EXPECT_EQ(entry["bytes"], Json::array({0xC3}));
  EXPECT_EQ(entry["token"], "\ufffd");
  EXPECT_EQ(entry["top_logprobs"].size(), 2U);
}

TEST(StreamWriter, CompletionLogprobsCountCharacters) {
  StreamWriter writer(make_head(false, /*logprobs=*/true));
  writer.token(0, make_delta('x', "\u00e9\u00e9"));
  const Json token = Json::parse(events_of(writer.token(0, make_delta('y', "y"))).at(0));
  EXPECT_EQ(token["choices"][0]["logprobs"]["text_offset"], Json::array({2}));
  EXPECT_EQ(token["choices"][0]["logprobs"]["tokens"], Json::array({"y"}));
}

TEST(WholeAnswer, Chat) {
  Finish finish = make_finish(FinishReason::stop);
  finish.text = "!";
  finish.stop_sequence = "END";
  const Json answer =
      whole_answer(make_head(true, /*logprobs=*/true),
                   {make_delta('a', "a"), make_delta(0xC3, ""), make_delta('b', "b")}, finish);
  EXPECT_EQ(answer["object"], "chat.completion");
  const Json choice = answer["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["message"]["content"], "ab!");
  EXPECT_EQ(choice["finish_reason"], "stop");
  const Json content = choice["logprobs"]["content"];
  ASSERT_EQ(content.size(), 3U);
  EXPECT_EQ(content[0]["token"], "a");
  EXPECT_EQ(content[0]["logprob"], -0.5);
  EXPECT_EQ(content[0]["top_logprobs"].size(), 2U);
  EXPECT_EQ(content[1]["token"], "\ufffd");
  EXPECT_EQ(content[1]["bytes"], Json::array({0xC3}));
  EXPECT_EQ(answer["usage"]["completion_tokens"], 2);
  EXPECT_EQ(answer["mobius"]["stop_sequence"], "END");
}

TEST(WholeAnswer, Completion) {
  const Json answer = whole_answer(make_head(false), {make_delta('a', "a\"\n")}, make_finish());
  EXPECT_EQ(answer["object"], "text_completion");
  EXPECT_EQ(answer["choices"][0]["text"], "a\"\n");
  EXPECT_TRUE(answer["choices"][0]["logprobs"].is_null());
}

TEST(WholeAnswer, CompletionLogprobsAreListsOfEqualLength) {
  const Json answer =
      whole_answer(make_head(false, /*logprobs=*/true),
                   {make_delta('a', "\u00e9"), make_delta('b', "b")}, make_finish());
  const Json lists = answer["choices"][0]["logprobs"];
  EXPECT_EQ(lists["text_offset"], Json::array({0, 1}));
  EXPECT_EQ(lists["token_logprobs"], Json::array({-0.5, -0.5}));
  EXPECT_EQ(lists["tokens"], Json::array({"a", "b"}));
  ASSERT_EQ(lists["top_logprobs"].size(), 2U);
  EXPECT_EQ(lists["top_logprobs"][0], (Json{{"a", -0.5}, {"\ufffd", -1.5}}));
}

/// Two prompts, two choices each.
AnswerHead several_head(bool chat) {
  AnswerHead head = make_head(chat, false, /*include_usage=*/true);
  head.seeds = {1, 2, 3, 4};
  head.n = 2;
  return head;
}

Finish finish_of(std::int32_t prompt, std::int32_t cached, std::int32_t completion) {
  Finish finish = make_finish(FinishReason::stop);
  finish.usage = {prompt, cached, completion};
  return finish;
}

TEST(SeveralChoices, UsageCountsPromptsOnce) {
  AnswerWriter writer(several_head(false));
  writer.finish(3, finish_of(7, 6, 4));
  writer.finish(1, finish_of(10, 8, 2));
  writer.token(0, make_delta('a', "a"));
  writer.finish(0, finish_of(10, 4, 1));
  Finish stopped = finish_of(7, 7, 3);
  stopped.stop_sequence = "END";
  writer.finish(2, stopped);
  const Json answer = Json::parse(writer.text());
  ASSERT_EQ(answer["choices"].size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(answer["choices"][i]["index"], i);
    EXPECT_EQ(answer["choices"][i]["mobius"]["seed"], i + 1);
  }
  EXPECT_EQ(answer["choices"][0]["text"], "a");
  EXPECT_EQ(answer["choices"][2]["mobius"]["stop_sequence"], "END");
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 17);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 10);
  EXPECT_EQ(answer["usage"]["total_tokens"], 27);
  EXPECT_EQ(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 4 + 6);
  EXPECT_EQ(answer["mobius"]["seed"], 1);
  EXPECT_EQ(answer["mobius"]["prefill_blocks"], (Json{{"read", 12}, {"total", 120}}));
  EXPECT_FALSE(answer["mobius"].contains("stop_sequence"));
}

TEST(SeveralChoices, StreamsEndWithTheLastOne) {
  StreamWriter writer(several_head(true));
  const auto begin = events_of(writer.begin());
  ASSERT_EQ(begin.size(), 4U);
  EXPECT_EQ(Json::parse(begin[3])["choices"][0]["index"], 3);
  EXPECT_EQ(Json::parse(events_of(writer.token(2, make_delta('a', "a")))[0])["choices"][0]["index"],
            2);
  EXPECT_EQ(
      Json::parse(events_of(writer.progress(1, {9, 1, 5, 0.5}))[0])["mobius"]["progress"]["index"],
      1);
  for (const std::size_t i : {2, 0, 3}) {
    const auto last = events_of(writer.finish(i, finish_of(5, 0, 1)));
    ASSERT_EQ(last.size(), 1U);
    EXPECT_EQ(Json::parse(last[0])["choices"][0]["index"], i);
    EXPECT_EQ(Json::parse(last[0])["choices"][0]["mobius"]["seed"], i + 1);
    EXPECT_FALSE(writer.ended());
  }
  const auto last = events_of(writer.finish(1, finish_of(5, 0, 1)));
  ASSERT_EQ(last.size(), 3U);
  EXPECT_EQ(Json::parse(last[1])["usage"]["total_tokens"], 14);
  EXPECT_EQ(last[2], "[DONE]");
  EXPECT_TRUE(writer.ended());
}

TEST(SeveralChoices, AFailureEndsTheStream) {
  StreamWriter writer(several_head(true));
  Finish failed = make_finish(FinishReason::error);
  failed.status = Status(StatusCode::internal, "x");
  EXPECT_EQ(events_of(writer.finish(1, failed)).back(), "[DONE]");
  EXPECT_TRUE(writer.ended());
}

/// The tokens C3 A9 (one character) and 'x', of which the first has no log-probability.
PromptTokens make_prompt_tokens(std::int32_t first, std::vector<std::int32_t> tokens) {
  PromptTokens prompt;
  prompt.first = first;
  prompt.total = 3;
  for (const std::int32_t token : tokens) {
    prompt.tokens.push_back({.token = token, .logprob = -2.0F, .top = {{'a', -1}, {'b', -3}}});
  }
  return prompt;
}

TEST(AnswerWriter, AnEchoHasLogprobs) {
  AnswerHead head = make_head(false, true);
  head.echo = {"\u00e9x"};
  head.echo_logprobs = 1;
  AnswerWriter writer(head);
  writer.prompt(0, make_prompt_tokens(0, {0xC3, 0xA9}));
  writer.prompt(0, make_prompt_tokens(2, {'x'}));
  writer.token(0, make_delta('y', "y"));
  writer.finish(0, make_finish());
  const Json choice = Json::parse(writer.text())["choices"][0];
  EXPECT_EQ(choice["text"], "\u00e9xy");
  const Json& lists = choice["logprobs"];
  EXPECT_EQ(lists["text_offset"], Json({0, 0, 1, 2}));
  EXPECT_EQ(lists["token_logprobs"], Json({nullptr, -2.0, -2.0, -0.5}));
  EXPECT_EQ(lists["tokens"].size(), 4U);
  EXPECT_EQ(lists["top_logprobs"][0], nullptr);
  EXPECT_EQ(lists["top_logprobs"][1], Json({{"a", -1.0}})) << "the other was asked for elsewhere";
  EXPECT_FALSE(choice.contains("prompt_logprobs"));
}

TEST(AnswerWriter, PromptLogprobsAreNamedById) {
  AnswerHead head = make_head(false);
  head.prompt_logprobs = 2;
  AnswerWriter writer(head);
  writer.prompt(0, make_prompt_tokens(0, {'x', 'a', 'x'}));
  writer.finish(0, make_finish());
  const Json listed = Json::parse(writer.text())["choices"][0]["prompt_logprobs"];
  ASSERT_EQ(listed.size(), 3U);
  EXPECT_EQ(listed[0], nullptr);
  EXPECT_EQ(listed[1]["97"]["rank"], 1);
  EXPECT_EQ(listed[1]["98"], Json({{"logprob", -3.0}, {"rank", 2}, {"decoded_token", "b"}}));
  EXPECT_EQ(listed[2]["120"]["rank"], nullptr);
  EXPECT_EQ(listed[2].size(), 3U);
}

TEST(StreamWriter, AnEchoComesWithItsLogprobs) {
  AnswerHead head = make_head(false, true);
  head.echo = {"\u00e9x"};
  head.echo_logprobs = 0;
  StreamWriter writer(head);
  EXPECT_EQ(writer.begin(), "");
  const auto choice_of = [](const std::string& stream) {
    return Json::parse(events_of(stream).at(0))["choices"][0];
  };
  const Json first = choice_of(writer.prompt(0, make_prompt_tokens(0, {0xC3})));
  EXPECT_EQ(first["text"], "");
  EXPECT_EQ(first["logprobs"]["token_logprobs"], Json::array({nullptr}));
  const Json second = choice_of(writer.prompt(0, make_prompt_tokens(1, {0xA9, 'x'})));
  EXPECT_EQ(second["text"], "\u00e9x");
  EXPECT_EQ(second["logprobs"]["text_offset"], Json({0, 1}));
  const Json token = choice_of(writer.token(0, make_delta('y', "y")));
  EXPECT_EQ(token["logprobs"]["text_offset"], Json({2}));
}

TEST(Echo, ThePromptBeginsTheAnswer) {
  AnswerHead head = several_head(false);
  head.echo = {"p\u00e9 ", "q"};
  StreamWriter stream(head);
  const auto begin = events_of(stream.begin());
  ASSERT_EQ(begin.size(), 4U);
  EXPECT_EQ(Json::parse(begin[1])["choices"][0]["text"], "p\u00e9 ");
  EXPECT_EQ(Json::parse(begin[2])["choices"][0]["text"], "q");
  AnswerWriter whole(head);
  whole.token(1, make_delta('a', "a"));
  for (std::size_t i = 0; i < 4; ++i) whole.finish(i, finish_of(5, 0, 1));
  const Json answer = Json::parse(whole.text());
  EXPECT_EQ(answer["choices"][1]["text"], "p\u00e9 a");
  EXPECT_EQ(answer["choices"][3]["text"], "q");
}

AnswerHead tool_head() {
  AnswerHead head = make_head(true);
  head.id = "chatcmpl-7f";
  head.tool_names = {"f"};
  return head;
}

const std::vector<std::string> kCallParts = {R"({"name": "f",)", R"( "parameters")", R"(: {"a)",
                                             R"(": 1})", "}"};

TEST(ToolCalls, Whole) {
  std::vector<TokenDelta> tokens;
  for (const std::string& part : kCallParts) tokens.push_back(make_delta('x', part));
  const Json choice =
      whole_answer(tool_head(), tokens, make_finish(FinishReason::stop))["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_TRUE(choice["message"]["content"].is_null());
  EXPECT_EQ(choice["message"]["tool_calls"],
            Json::parse(R"([{"id": "call_7f_0_0", "type": "function",
                             "function": {"name": "f", "arguments": "{\"a\": 1}"}}])"));
  tokens.resize(4);
  EXPECT_EQ(whole_answer(tool_head(), tokens, make_finish())["choices"][0]["finish_reason"],
            "length");
}

TEST(ToolCalls, TextIsContent) {
  const Json choice =
      whole_answer(tool_head(), {make_delta('x', "{\"a\""), make_delta('x', ": 1}")},
                   make_finish(FinishReason::stop))["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(choice["message"]["content"], "{\"a\": 1}");
  EXPECT_FALSE(choice["message"].contains("tool_calls"));
}

TEST(ToolCalls, Streamed) {
  StreamWriter writer(tool_head());
  std::vector<Json> deltas;
  for (const std::string& part : kCallParts) {
    for (const std::string& event : events_of(writer.token(0, make_delta('x', part)))) {
      deltas.push_back(Json::parse(event)["choices"][0]["delta"]);
    }
  }
  ASSERT_EQ(deltas.size(), 2U);
  EXPECT_EQ(deltas[0],
            Json::parse(R"({"tool_calls": [{"index": 0, "id": "call_7f_0_0", "type": "function",
                                       "function": {"name": "f", "arguments": "{\"a"}}]})"));
  EXPECT_EQ(deltas[1],
            Json::parse(R"({"tool_calls": [{"index": 0, "function": {"arguments": "\": 1}"}}]})"));
  const auto last = events_of(writer.finish(0, make_finish(FinishReason::stop)));
  EXPECT_EQ(Json::parse(last[0])["choices"][0]["finish_reason"], "tool_calls");
}

TEST(WholeAnswer, NoTokensNoLogprobs) {
  const Json answer = whole_answer(make_head(true, /*logprobs=*/true), {}, make_finish());
  EXPECT_EQ(answer["choices"][0]["logprobs"]["content"], Json::array());
}

TEST(HttpStatus, EveryCodeHasOne) {
  EXPECT_EQ(http_status_of(StatusCode::ok), 200);
  EXPECT_EQ(http_status_of(StatusCode::invalid_argument), 400);
  EXPECT_EQ(http_status_of(StatusCode::not_found), 404);
  EXPECT_EQ(http_status_of(StatusCode::resource_exhausted), 429);
  EXPECT_EQ(http_status_of(StatusCode::cancelled), 499);
  EXPECT_EQ(http_status_of(StatusCode::internal), 500);
  EXPECT_EQ(http_status_of(StatusCode::unavailable), 503);
  EXPECT_EQ(http_status_of(StatusCode::deadline_exceeded), 504);
}

TEST(HttpStatus, ErrorBodies) {
  const Json invalid = Json::parse(error_body(Status::invalid("top_p", "top_p is 2")))["error"];
  EXPECT_EQ(invalid["message"], "top_p is 2");
  EXPECT_EQ(invalid["param"], "top_p");
  EXPECT_EQ(invalid["type"], "invalid_request_error");
  EXPECT_EQ(invalid["code"], "invalid_argument");
  const Json model = Json::parse(error_body(Status(StatusCode::not_found, "no", "model")))["error"];
  EXPECT_EQ(model["code"], "model_not_found");
  const Json server = Json::parse(error_body(Status(StatusCode::internal, "x")))["error"];
  EXPECT_EQ(server["type"], "server_error");
  EXPECT_TRUE(server["param"].is_null());
}

}  // namespace
}  // namespace mobius
