#include "server/http/openai_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mobius {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

OpenAiRequest chat(const std::string& members) {
  StatusOr<OpenAiRequest> request =
      parse_chat_request(R"({"messages": [{"role": "user", "content": "hi"}])" +
                         (members.empty() ? "" : ", " + members) + "}");
  EXPECT_TRUE(request.ok()) << request.status().message();
  return request.ok() ? std::move(request).value() : OpenAiRequest{};
}

OpenAiRequest completion(const std::string& text) {
  StatusOr<OpenAiRequest> request = parse_completion_request(text);
  EXPECT_TRUE(request.ok()) << request.status().message();
  return request.ok() ? std::move(request).value() : OpenAiRequest{};
}

TEST(OpenAiRequest, NothingSetIsNothingSet) {
  const OpenAiRequest request = chat("");
  const GenerationOptions& options = request.options();
  EXPECT_FALSE(request.stream);
  EXPECT_FALSE(options.max_tokens.has_value());
  EXPECT_FALSE(options.temperature.has_value());
  EXPECT_FALSE(options.seed.has_value());
  EXPECT_FALSE(options.top_logprobs.has_value());
  EXPECT_FALSE(options.deadline.has_value());
  EXPECT_FALSE(options.attention.prefill.mode.has_value());
}

TEST(OpenAiRequest, EveryOption) {
  const OpenAiRequest request = chat(R"(
    "model": "m", "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1,
    "seed": 18446744073709551615, "presence_penalty": 1, "frequency_penalty": -1,
    "repetition_penalty": 1.1, "logit_bias": {"5": -100, "7": 1.5}, "stop": ["a", "b"],
    "stop_token_ids": [1, 2], "ignore_eos": true, "logprobs": true, "top_logprobs": 3,
    "stream": true, "stream_options": {"include_usage": true},
    "mobius": {"prefill": {"mode": "moba", "block": 256, "top_k": 3}, "decode": {"mode": "full"},
               "full_attention_last_layers": 2, "progress": true, "timeout_ms": 1000, "priority": -5},
    "user": "someone")");
  const GenerationOptions& options = request.options();
  EXPECT_EQ(std::get<ChatInput>(request.input).model, "m");
  EXPECT_EQ(options.max_tokens, 5);
  EXPECT_EQ(options.temperature, 0.5);
  EXPECT_EQ(options.top_p, 0.9);
  EXPECT_EQ(options.top_k, 7);
  EXPECT_EQ(options.min_p, 0.1);
  EXPECT_EQ(options.seed, UINT64_MAX);
  EXPECT_EQ(options.presence_penalty, 1);
  EXPECT_EQ(options.frequency_penalty, -1);
  EXPECT_EQ(options.repetition_penalty, 1.1);
  EXPECT_THAT(options.logit_bias, ElementsAre(Pair(5, -100), Pair(7, 1.5)));
  EXPECT_THAT(options.stop, ElementsAre("a", "b"));
  EXPECT_THAT(options.stop_token_ids, ElementsAre(1, 2));
  EXPECT_TRUE(options.ignore_eos);
  EXPECT_EQ(options.top_logprobs, 3);
  EXPECT_TRUE(request.stream);
  EXPECT_TRUE(request.include_usage);
  EXPECT_EQ(options.attention.prefill.mode, AttentionMode::moba);
  EXPECT_EQ(options.attention.prefill.block, 256);
  EXPECT_EQ(options.attention.prefill.top_k, 3);
  EXPECT_EQ(options.attention.decode.mode, AttentionMode::full);
  EXPECT_FALSE(options.attention.decode.block.has_value());
  EXPECT_EQ(options.attention.full_attention_last_layers, 2);
  EXPECT_TRUE(options.progress);
  EXPECT_EQ(options.priority, -5);
  EXPECT_EQ(options.user, "someone");
  EXPECT_TRUE(options.deadline.has_value());
}

TEST(OpenAiRequest, NullIsAbsent) {
  const OpenAiRequest request = chat(
      R"("max_tokens": null, "temperature": null, "stop": null, "tools": null, "mobius": null)");
  EXPECT_FALSE(request.options().max_tokens.has_value());
  EXPECT_FALSE(request.options().temperature.has_value());
}

TEST(OpenAiRequest, HarmlessAndNeutralMembersAreTaken) {
  chat(R"("user": "u", "metadata": {"a": "b"}, "store": true, "service_tier": "auto", "n": 1,
          "response_format": {"type": "text"}, "tool_choice": "auto", "parallel_tool_calls": false,
          "modalities": ["text"])");
}

TEST(OpenAiRequest, ResponseFormats) {
  EXPECT_EQ(chat(R"("response_format": {"type": "text"})").options().response_format.kind,
            ResponseFormat::Kind::text);
  EXPECT_EQ(chat(R"("response_format": {"type": "json_object"})").options().response_format.kind,
            ResponseFormat::Kind::json_object);
  const ResponseFormat format =
      completion(R"({"prompt": "x", "response_format": {"type": "json_schema", "json_schema":
                     {"name": "a-B_1", "description": "d", "strict": true,
                      "schema": {"type": "object", "b": 1, "a": 2}}}})")
          .options()
          .response_format;
  EXPECT_EQ(format.kind, ResponseFormat::Kind::json_schema);
  // The order of properties is the order of the answer's.
  EXPECT_EQ(format.schema, R"({"type":"object","b":1,"a":2})");
}

TEST(OpenAiRequest, NewerNameOfMaxTokensWins) {
  EXPECT_EQ(chat(R"("max_tokens": 5, "max_completion_tokens": 6)").options().max_tokens, 6);
}

TEST(OpenAiRequest, FieldsAreNamedAsTheClientDid) {
  const auto name = [](const std::string& field, const OpenAiNames& names) {
    const Status status = with_names(Status::invalid(field, field + " is 5"), names);
    EXPECT_EQ(status.message(), status.field() + " is 5");
    return status.field();
  };
  const OpenAiNames newer = chat(R"("max_completion_tokens": 6)").names;
  EXPECT_EQ(name("max_tokens", newer), "max_completion_tokens");
  const OpenAiNames older = chat(R"("max_tokens": 6)").names;
  EXPECT_EQ(name("max_tokens", older), "max_tokens");
  EXPECT_EQ(name("top_logprobs", older), "top_logprobs");
  EXPECT_EQ(name("attention.prefill.block", older), "mobius.prefill.block");
  EXPECT_EQ(name("prompt", older), "messages");
  EXPECT_EQ(name("response_format.schema", older), "response_format.json_schema.schema");
  const OpenAiNames text = completion(R"({"prompt": "x"})").names;
  EXPECT_EQ(name("top_logprobs", text), "logprobs");
  EXPECT_EQ(name("prompt", text), "prompt");
  EXPECT_EQ(name("prompt[3]", text), "prompt[3]");
  EXPECT_EQ(name("attention.full_attention_last_layers", text),
            "mobius.full_attention_last_layers");
}

TEST(OpenAiRequest, NegativeSeedKeepsItsBits) {
  EXPECT_EQ(chat(R"("seed": -1)").options().seed, UINT64_MAX);
}

TEST(OpenAiRequest, LogprobsOfChatAreASwitch) {
  EXPECT_EQ(chat(R"("logprobs": true)").options().top_logprobs, 0);
  EXPECT_FALSE(chat(R"("logprobs": false)").options().top_logprobs.has_value());
}

TEST(OpenAiRequest, Messages) {
  StatusOr<OpenAiRequest> parsed = parse_chat_request(R"({"messages": [
    {"role": "developer", "content": "d"},
    {"role": "user", "name": "u", "content": [{"type": "text", "text": "a"},
                                              {"type": "text", "text": "b"}]},
    {"role": "assistant", "content": null, "tool_calls": [
      {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "r"}]})");
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  const auto& messages = std::get<ChatInput>(parsed.value().input).messages;
  ASSERT_EQ(messages.size(), 4U);
  EXPECT_EQ(messages[0].role, ChatRole::system);
  EXPECT_EQ(messages[1].content, "ab");
  ASSERT_EQ(messages[2].tool_calls.size(), 1U);
  EXPECT_EQ(messages[2].tool_calls[0].name, "f");
  EXPECT_EQ(messages[2].tool_calls[0].arguments, R"({"x": 1})");
  EXPECT_EQ(messages[3].role, ChatRole::tool);
  EXPECT_EQ(messages[3].tool_call_id, "c1");
}

TEST(OpenAiRequest, ToolsKeepTheirOrderOfKeys) {
  const std::string tool = R"({"type":"function","function":{"name":"f","b":1,"a":2}})";
  EXPECT_THAT(std::get<ChatInput>(chat("\"tools\": [" + tool + "]").input).tools_json,
              ElementsAre(tool));
  EXPECT_TRUE(
      std::get<ChatInput>(chat("\"tools\": [" + tool + "], \"tool_choice\": \"none\"").input)
          .tools_json.empty());
}

TEST(OpenAiRequest, Prompts) {
  EXPECT_EQ(std::get<std::string>(
                std::get<CompletionInput>(completion(R"({"prompt": ""})").input).prompt),
            "");
  EXPECT_EQ(std::get<std::string>(
                std::get<CompletionInput>(completion(R"({"prompt": ["x"]})").input).prompt),
            "x");
  EXPECT_THAT(std::get<std::vector<std::int32_t>>(
                  std::get<CompletionInput>(completion(R"({"prompt": [1, 2]})").input).prompt),
              ElementsAre(1, 2));
  EXPECT_EQ(completion(R"({"prompt": "x", "logprobs": 2})").options().top_logprobs, 2);
}

struct BadBody {
  const char* members;  ///< beside a valid `messages`
  const char* field;
  const char* message;
};

class BadBodies : public testing::TestWithParam<BadBody> {};

TEST_P(BadBodies, NameFieldValueAndLimit) {
  const StatusOr<OpenAiRequest> request =
      parse_chat_request(std::string(R"({"messages": [{"role": "user", "content": "hi"}], )") +
                         GetParam().members + "}");
  ASSERT_FALSE(request.ok());
  EXPECT_EQ(request.status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(request.status().field(), GetParam().field);
  EXPECT_EQ(request.status().message(), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadBodies,
    testing::Values(
        BadBody{R"("temperature": "1")", "temperature",
                "temperature is a string (\"1\"); must be a number"},
        BadBody{R"("temperature": [1])", "temperature",
                "temperature is an array; must be a number"},
        BadBody{R"("max_tokens": 1.0)", "max_tokens",
                "max_tokens is a number (1.0); must be an integer of at most 64 bits"},
        BadBody{R"("max_tokens": 18446744073709551615)", "max_tokens",
                "max_tokens is an integer (18446744073709551615); must be an integer of at most 64 "
                "bits"},
        BadBody{R"("max_tokens": true)", "max_tokens",
                "max_tokens is a boolean (true); must be an integer of at most 64 bits"},
        BadBody{R"("seed": 1e40)", "seed",
                "seed is a number (1e+40); must be an integer of at most 64 bits"},
        BadBody{R"("stop": {})", "stop",
                "stop is an object; must be a string or an array of strings"},
        BadBody{R"("stop": ["a", null])", "stop[1]", "stop[1] is null; must be a string"},
        BadBody{R"("logit_bias": {"1": "x"})", "logit_bias.1",
                "logit_bias.1 is a string (\"x\"); must be a number"},
        BadBody{R"("logit_bias": {"99999999999999999999": 1})", "logit_bias.99999999999999999999",
                "logit_bias.99999999999999999999 is no token; keys must be token ids"},
        BadBody{R"("n": 2)", "n", "n is 2; this server supports only 1"},
        BadBody{R"("response_format": "json")", "response_format",
                "response_format is a string (\"json\"); must be an object"},
        BadBody{R"("response_format": {"type": "xml"})", "response_format.type",
                "response_format.type is \"xml\"; must be \"text\", \"json_object\" or "
                "\"json_schema\""},
        BadBody{R"("response_format": {"type": "json_object", "schema": {}})",
                "response_format.schema",
                "response_format.schema is not a field that this server knows"},
        BadBody{R"("response_format": {"type": "json_schema"})", "response_format.json_schema",
                "response_format.json_schema is missing"},
        BadBody{R"("response_format": {"type": "json_schema", "json_schema": {"schema": {}}})",
                "response_format.json_schema.name", "response_format.json_schema.name is missing"},
        BadBody{R"("response_format": {"type": "json_schema", "json_schema": {"name": "a b",
                "schema": {}}})",
                "response_format.json_schema.name",
                "response_format.json_schema.name is \"a b\"; must be 1 to 64 letters, digits, "
                "underscores and dashes"},
        BadBody{R"("response_format": {"type": "json_schema", "json_schema": {"name": "a"}})",
                "response_format.json_schema.schema",
                "response_format.json_schema.schema is missing"},
        BadBody{R"("tool_choice": {"type": "function"})", "tool_choice",
                "tool_choice is an object; this server supports only \"auto\" and \"none\""},
        BadBody{R"("stream_options": {"include_usage": true})", "stream_options",
                "stream_options is set; it is allowed only with \"stream\": true"},
        BadBody{R"("stream": true, "stream_options": {"x": 1})", "stream_options.x",
                "stream_options.x is not a field that this server knows"},
        BadBody{R"("mobius": {"prefill": {"mode": "x"}})", "mobius.prefill.mode",
                "mobius.prefill.mode is \"x\"; must be \"full\" or \"moba\""},
        BadBody{R"("mobius": {"prefill": 5})", "mobius.prefill",
                "mobius.prefill is an integer (5); must be an object"},
        BadBody{R"("mobius": {"timeout_ms": -5})", "mobius.timeout_ms",
                "mobius.timeout_ms is -5; must be 1 to 604800000"},
        BadBody{R"("max_token": 5)", "max_token",
                "max_token is not a field that this server knows"},
        BadBody{R"("prompt": "x")", "prompt", "prompt is not a field that this server knows"}));

TEST(OpenAiRequest, TheFirstErrorIsReported) {
  const StatusOr<OpenAiRequest> request =
      parse_chat_request(R"({"messages": 1, "temperature": "x"})");
  ASSERT_FALSE(request.ok());
  EXPECT_EQ(request.status().field(), "messages");
}

TEST(OpenAiRequest, BodiesThatAreNoObject) {
  for (const char* body : {"", "[]", "1", "{", "{\"prompt\": \"\xff\"}", "{\"a\": 1, \"a\": 1}"}) {
    const StatusOr<OpenAiRequest> request = parse_completion_request(body);
    ASSERT_FALSE(request.ok()) << body;
    EXPECT_EQ(request.status().code(), StatusCode::invalid_argument);
    EXPECT_THAT(request.status().message(), HasSubstr("the body is"));
  }
}

}  // namespace
}  // namespace mobius
