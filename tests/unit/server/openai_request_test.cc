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
  EXPECT_TRUE(chat(R"("seed": -1)").options().seed_is_negative);
  EXPECT_FALSE(chat(R"("seed": 18446744073709551615)").options().seed_is_negative);
}

TEST(OpenAiRequest, AnEchoWithLogprobsScoresThePrompt) {
  EXPECT_FALSE(completion(R"({"prompt": "x", "logprobs": 2})").options().prompt_logprobs);
  EXPECT_FALSE(completion(R"({"prompt": "x", "echo": true})").options().prompt_logprobs);
  const OpenAiRequest echo = completion(R"({"prompt": "x", "logprobs": 2, "echo": true})");
  EXPECT_EQ(echo.options().prompt_logprobs, 2);
  EXPECT_FALSE(echo.prompt_logprobs.has_value());
  const OpenAiRequest both =
      completion(R"({"prompt": "x", "logprobs": 2, "echo": true, "prompt_logprobs": 5})");
  EXPECT_EQ(both.options().prompt_logprobs, 5);
  EXPECT_EQ(both.prompt_logprobs, 5);
  EXPECT_EQ(chat(R"("prompt_logprobs": 0)").options().prompt_logprobs, 0);
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

ChatInput chat_input(const std::string& members) {
  return std::get<ChatInput>(chat(members).input);
}

std::string tool(const std::string& name) {
  return R"({"type":"function","function":{"name":")" + name + R"(","b":1,"a":2}})";
}

TEST(OpenAiRequest, ToolsKeepTheirOrderOfKeys) {
  const ChatInput input = chat_input("\"tools\": [" + tool("f") + "]");
  EXPECT_THAT(input.tools_json, ElementsAre(tool("f")));
  EXPECT_EQ(input.tool_choice.kind, ToolChoice::Kind::automatic);
  EXPECT_TRUE(input.parallel_tool_calls);
}

TEST(OpenAiRequest, ToolChoices) {
  using Kind = ToolChoice::Kind;
  const std::string tools = "\"tools\": [" + tool("f") + ", " + tool("g") + "], ";
  const auto choice = [&](const std::string& value) {
    return chat_input(tools + "\"tool_choice\": " + value);
  };
  EXPECT_EQ(choice("\"none\"").tool_choice.kind, Kind::none);
  EXPECT_EQ(choice("\"auto\"").tool_choice.kind, Kind::automatic);
  EXPECT_EQ(choice("null").tool_choice.kind, Kind::automatic);
  EXPECT_EQ(choice("\"required\"").tool_choice.kind, Kind::required);
  const ToolChoice named = choice(R"({"type": "function", "function": {"name": "g"}})").tool_choice;
  EXPECT_EQ(named.kind, Kind::named);
  EXPECT_EQ(named.name, "g");
  const ChatInput allowed =
      choice(R"({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [)" +
             tool("g") + "]}}");
  EXPECT_EQ(allowed.tool_choice.kind, Kind::required);
  EXPECT_THAT(allowed.tools_json, ElementsAre(tool("g")));
  EXPECT_EQ(choice(R"({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}})")
                .tools_json.size(),
            0U);
  EXPECT_FALSE(chat_input(tools + "\"parallel_tool_calls\": false").parallel_tool_calls);
}

TEST(OpenAiRequest, Prompts) {
  const auto prompts = [](const std::string& json) {
    return std::get<CompletionInput>(completion(R"({"prompt": )" + json + "}").input).prompts;
  };
  using Ids = std::vector<std::int32_t>;
  EXPECT_THAT(prompts("\"\""), ElementsAre(Prompt("")));
  EXPECT_THAT(prompts("[\"x\"]"), ElementsAre(Prompt("x")));
  EXPECT_THAT(prompts("[1, 2]"), ElementsAre(Prompt(Ids{1, 2})));
  EXPECT_THAT(prompts("[\"x\", \"y\"]"), ElementsAre(Prompt("x"), Prompt("y")));
  EXPECT_THAT(prompts("[[1, 2], \"x\", [3]]"),
              ElementsAre(Prompt(Ids{1, 2}), Prompt("x"), Prompt(Ids{3})));
  EXPECT_EQ(completion(R"({"prompt": "x", "logprobs": 2})").options().top_logprobs, 2);
}

TEST(OpenAiRequest, SeveralChoicesAndEcho) {
  EXPECT_EQ(chat("\"n\": 3").options().n, 3);
  const OpenAiRequest request =
      completion(R"({"prompt": "x", "n": 2, "best_of": 2, "echo": true})");
  EXPECT_EQ(request.options().n, 2);
  EXPECT_TRUE(request.echo);
  EXPECT_FALSE(completion(R"({"prompt": "x", "best_of": 1})").echo);
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
        BadBody{R"("n": "2")", "n", "n is a string (\"2\"); must be an integer of at most 64 bits"},
        BadBody{R"("reasoning_effort": "low")", "reasoning_effort",
                "reasoning_effort is \"low\"; this server supports only \"none\""},
        BadBody{R"("functions": [])", "functions",
                "functions is an array; this server supports only null"},
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
                "tool_choice is an object; must be \"none\", \"auto\", \"required\", "
                "{\"type\": \"function\", \"function\": {\"name\": ...}} or {\"type\": "
                "\"allowed_tools\", ...}"},
        BadBody{R"("tool_choice": {"type": "allowed_tools"})", "tool_choice.allowed_tools",
                "tool_choice.allowed_tools is missing"},
        BadBody{R"("tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": []}})",
                "tool_choice.allowed_tools.mode",
                "tool_choice.allowed_tools.mode is \"\"; must be \"auto\" or \"required\""},
        BadBody{R"("tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}})",
                "tool_choice.allowed_tools.tools", "tool_choice.allowed_tools.tools is missing"},
        BadBody{R"("tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto",
                "tools": [{"type": "function", "function": {"name": "f"}}]}})",
                "tool_choice.allowed_tools.tools[0]",
                "tool_choice.allowed_tools.tools[0] names none of the functions in \"tools\""},
        BadBody{R"("tools": [{"type": "custom", "custom": {"name": "f"}}])", "tools[0]",
                "tools[0] is of type \"custom\"; must be of type \"function\""},
        BadBody{R"("tools": [{"custom": {"name": "f"}}])", "tools[0]",
                "tools[0] is without a type; must be of type \"function\""},
        BadBody{R"("tools": ["f"])", "tools[0]",
                "tools[0] is a string; must be of type \"function\""},
        BadBody{R"("tools": [{"type": "function", "name": "f"}])", "tools[0].function",
                "tools[0].function is missing or not an object"},
        BadBody{R"("parallel_tool_calls": 1)", "parallel_tool_calls",
                "parallel_tool_calls is an integer (1); must be a boolean"},
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

TEST(OpenAiRequest, BadCompletions) {
  struct Case {
    const char* members;
    const char* field;
    const char* words;
  };
  for (const Case& each : std::vector<Case>{
           {R"("x": 1)", "prompt", "is missing"},
           {R"("prompt": [])", "prompt", "is an empty array"},
           {R"("prompt": 1)", "prompt",
            "must be a string, an array of tokens, or an array of such"},
           {R"("prompt": [1, "a"])", "prompt[1]", "must be a token id"},
           {R"("prompt": [-1])", "prompt[0]", "is -1; must be a token id"},
           {R"("prompt": ["a", 1])", "prompt[1]", "must be a string or an array of tokens"},
           {R"("prompt": ["a", [1, 1.5]])", "prompt[1][1]", "must be a token id"},
           {R"("prompt": "x", "prompt_logprobs": 1, "stream": true)", "prompt_logprobs",
            "only without"},
           {R"("prompt": "x", "best_of": 3)", "best_of", "is 3; this server supports only n (1)"},
           {R"("prompt": "x", "n": 2, "best_of": 1)", "best_of", "supports only n (2)"},
           {R"("prompt": "x", "suffix": "y")", "suffix", "supports only \"\""}}) {
    const auto request = parse_completion_request(std::string("{") + each.members + "}");
    ASSERT_FALSE(request.ok()) << each.members;
    EXPECT_EQ(request.status().field(), each.field);
    EXPECT_THAT(request.status().message(), HasSubstr(each.words));
  }
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
