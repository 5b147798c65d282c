#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "server/http/openai_request.h"
#include "server/http/responses_writer.h"
#include "tests/unit/engine/support.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;
using testing::ElementsAre;

OpenAiRequest request_of(const std::string& members) {
  StatusOr<OpenAiRequest> request = parse_responses_request("{" + members + "}");
  EXPECT_TRUE(request.ok()) << request.status().message();
  return request.ok() ? std::move(request).value() : OpenAiRequest{};
}

ChatInput input_of(const std::string& members) {
  return std::get<ChatInput>(request_of(members).input);
}

TEST(ResponsesRequest, InstructionsAndInputAreMessages) {
  const ChatInput input = input_of(R"("instructions": "i", "input": "u", "model": "m")");
  EXPECT_EQ(input.model, "m");
  ASSERT_EQ(input.messages.size(), 2U);
  EXPECT_EQ(input.messages[0].role, ChatRole::system);
  EXPECT_EQ(input.messages[0].content, "i");
  EXPECT_EQ(input.messages[1].role, ChatRole::user);
  EXPECT_EQ(input.messages[1].content, "u");
}

TEST(ResponsesRequest, CallsThatComeTogetherAreOneMessage) {
  const auto messages = input_of(R"("input": [
      {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
      {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}", "id": "fc", "status": "completed"},
      {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
      {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "r"}]},
      {"type": "function_call", "call_id": "3", "name": "h", "arguments": "{}"}])")
                            .messages;
  ASSERT_EQ(messages.size(), 4U);
  EXPECT_EQ(messages[0].content, "ab");
  ASSERT_EQ(messages[1].tool_calls.size(), 2U);
  EXPECT_EQ(messages[1].tool_calls[1].id, "2");
  EXPECT_EQ(messages[2].role, ChatRole::tool);
  EXPECT_EQ(messages[2].tool_call_id, "2");
  EXPECT_EQ(messages[2].content, "r");
  EXPECT_EQ(messages[3].tool_calls.size(), 1U);
}

TEST(ResponsesRequest, OptionsAndWhatTheAnswerRepeats) {
  const OpenAiRequest request =
      request_of(R"("input": "x", "max_output_tokens": 7, "temperature": 0.5,
      "include": ["message.output_text.logprobs"], "metadata": {"a": "b"}, "stream": true,
      "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": true}],
      "tool_choice": {"type": "function", "name": "f"}, "parallel_tool_calls": false,
      "text": {"format": {"type": "json_schema", "name": "a", "schema": {"b": 1}}})");
  const auto& input = std::get<ChatInput>(request.input);
  EXPECT_EQ(input.options.max_tokens, 7);
  EXPECT_EQ(input.options.top_logprobs, 0);
  EXPECT_EQ(input.options.response_format.schema, R"({"b":1})");
  EXPECT_THAT(
      input.tools_json,
      ElementsAre(
          R"({"type":"function","function":{"name":"f","parameters":{"type":"object"},"strict":true}})"));
  EXPECT_EQ(input.tool_choice.kind, ToolChoice::Kind::named);
  EXPECT_FALSE(input.parallel_tool_calls);
  EXPECT_TRUE(request.stream);
  const Json members = Json::parse(request.response_members);
  EXPECT_EQ(members["metadata"], (Json{{"a", "b"}}));
  EXPECT_EQ(members["temperature"], 0.5);
  EXPECT_EQ(members["top_p"], 1);
  EXPECT_EQ(members["store"], false);
  EXPECT_EQ(members["tools"][0]["strict"], true);
}

TEST(ResponsesRequest, FieldsAreNamedAsTheClientDid) {
  const OpenAiNames names = request_of(R"("input": "x")").names;
  const auto name = [&](const std::string& field) {
    return with_names(Status::invalid(field, field + " is 5"), names).field();
  };
  EXPECT_EQ(name("max_tokens"), "max_output_tokens");
  EXPECT_EQ(name("prompt"), "input");
  EXPECT_EQ(name("messages[1].tool_calls[0].function.arguments"), "input");
  EXPECT_EQ(name("tools[2].function.name"), "tools[2].name");
  EXPECT_EQ(name("response_format.schema"), "text.format.schema");
  EXPECT_EQ(name("attention.decode.block"), "mobius.decode.block");
  EXPECT_EQ(name("top_logprobs"), "top_logprobs");
}

AnswerHead head_of(bool tools) {
  static const std::shared_ptr<const Tokenizer> tokenizer = byte_tokenizer();
  AnswerHead head;
  head.id = "resp_7f";
  head.model = "m";
  head.seeds = {42};
  head.response_members = R"({"store": false})";
  head.tokenizer = tokenizer.get();
  if (tools) head.tool_names = {"f"};
  return head;
}

TokenDelta delta_of(std::string text) {
  return {.token = {.token = 'x', .logprob = -0.5F, .top = {}}, .text = std::move(text)};
}

Finish finish_of(FinishReason reason) {
  Finish finish;
  finish.reason = reason;
  finish.usage = {.prompt_tokens = 10, .cached_tokens = 4, .completion_tokens = 2};
  return finish;
}

/// "event: TYPE\ndata: JSON\n\n" each.
std::vector<Json> events_of(std::string_view stream) {
  std::vector<Json> events;
  while (!stream.empty()) {
    const std::size_t line = stream.find('\n');
    const std::size_t end = stream.find("\n\n");
    events.push_back(Json::parse(stream.substr(line + 7, end - line - 7)));
    EXPECT_EQ(stream.substr(0, line), "event: " + events.back()["type"].get<std::string>());
    stream.remove_prefix(end + 2);
  }
  return events;
}

TEST(ResponsesWriter, ContentBehindACallIsAnItemOfItsOwn) {
  ResponsesWriter writer(head_of(true), true);
  std::string stream = writer.begin();
  for (const char* part : {R"({"name": "f", "para)", R"(meters": {"a": 1}})", " done"}) {
    stream += writer.token(0, delta_of(part));
  }
  EXPECT_FALSE(writer.ended());
  stream += writer.finish(0, finish_of(FinishReason::stop));
  EXPECT_TRUE(writer.ended());
  std::vector<std::string> kinds;
  const std::vector<Json> events = events_of(stream);
  for (std::size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i]["sequence_number"], i);
    kinds.push_back(events[i]["type"].get<std::string>().substr(9));
  }
  EXPECT_THAT(kinds, ElementsAre("created", "in_progress", "output_item.added",
                                 "function_call_arguments.delta", "function_call_arguments.done",
                                 "output_item.done", "output_item.added", "content_part.added",
                                 "output_text.delta", "output_text.done", "content_part.done",
                                 "output_item.done", "completed"));
  const Json output = events.back()["response"]["output"];
  ASSERT_EQ(output.size(), 2U);
  EXPECT_EQ(output[0]["call_id"], "call_7f_0_0");
  EXPECT_EQ(output[0]["arguments"], R"({"a": 1})");
  EXPECT_EQ(output[1]["content"][0]["text"], " done");
  EXPECT_NE(output[0]["id"], output[1]["id"]);
}

TEST(ResponsesWriter, WholeAnswers) {
  ResponsesWriter writer(head_of(false), false);
  EXPECT_EQ(writer.begin(), "");
  EXPECT_EQ(writer.token(0, delta_of("a")), "");
  Finish finish = finish_of(FinishReason::length);
  finish.text = "b";
  EXPECT_EQ(writer.finish(0, finish), "");
  const Json answer = Json::parse(writer.text());
  EXPECT_EQ(answer["status"], "incomplete");
  EXPECT_EQ(answer["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(answer["output"][0]["content"][0]["text"], "ab");
  EXPECT_EQ(answer["usage"]["total_tokens"], 12);
  EXPECT_EQ(answer["usage"]["input_tokens_details"]["cached_tokens"], 4);
  EXPECT_EQ(answer["store"], false);
  EXPECT_EQ(answer["mobius"]["seed"], 42);
}

TEST(ResponsesWriter, AnEmptyAnswerHasAnItem) {
  ResponsesWriter writer(head_of(false), false);
  writer.finish(0, finish_of(FinishReason::stop));
  const Json answer = Json::parse(writer.text());
  ASSERT_EQ(answer["output"].size(), 1U);
  EXPECT_EQ(answer["output"][0]["content"][0]["text"], "");
}

TEST(ResponsesWriter, LogprobsOfTextThatIsHeldBackComeWithIt) {
  AnswerHead head = head_of(true);
  head.logprobs = true;
  ResponsesWriter writer(head, true);
  EXPECT_EQ(writer.token(0, delta_of(R"({"a)")), "") << "it may become a call";
  const std::vector<Json> shown = events_of(writer.token(0, delta_of("\": 1}")));
  EXPECT_EQ(shown.back()["type"], "response.output_text.delta");
  EXPECT_EQ(shown.back()["logprobs"].size(), 2U);
  EXPECT_FALSE(shown.back()["logprobs"][0].contains("bytes"));
  const std::vector<Json> last = events_of(writer.finish(0, finish_of(FinishReason::stop)));
  EXPECT_EQ(last.back()["response"]["output"][0]["content"][0]["logprobs"].size(), 2U);
}

TEST(ResponsesWriter, AFailureSaysWhatThereWas) {
  ResponsesWriter writer(head_of(false), true);
  writer.token(0, delta_of("a"));
  Finish finish = finish_of(FinishReason::error);
  finish.status = Status(StatusCode::deadline_exceeded, "too late");
  const Json last = events_of(writer.finish(0, finish)).back();
  EXPECT_EQ(last["type"], "response.failed");
  EXPECT_EQ(last["response"]["error"]["message"], "too late");
  EXPECT_EQ(last["response"]["output"][0]["status"], "incomplete");
  EXPECT_TRUE(writer.ended());
}

}  // namespace
}  // namespace mobius
