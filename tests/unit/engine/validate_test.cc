#include "engine/validate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "tests/unit/engine/support.h"

namespace mobius {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr std::int32_t kContext = 100;

struct Case {
  std::string name;
  std::function<void(GenerationRequest&)> change;
  std::string field;  // empty: the request is valid
  std::string message;
};

void PrintTo(const Case& test, std::ostream* out) {
  *out << test.name;
}

class Validate : public testing::TestWithParam<Case> {};

TEST_P(Validate, NamesFieldValueAndLimit) {
  GenerationRequest request = make_request(10, 5);
  GetParam().change(request);
  const Status status = validate(request, simulated_model(), kContext);
  if (GetParam().field.empty()) {
    EXPECT_TRUE(status.ok()) << status.message();
    return;
  }
  EXPECT_EQ(status.code(), StatusCode::invalid_argument);
  EXPECT_EQ(status.field(), GetParam().field);
  EXPECT_EQ(status.message(), GetParam().message);
}

using Request = GenerationRequest;

const Case kCases[] = {
    {"unchanged", [](Request&) {}, "", ""},

    {"prompt_empty", [](Request& r) { r.prompt.clear(); }, "prompt",
     "prompt has 0 tokens, must have at least 1"},
    {"prompt_longest", [](Request& r) { r.prompt.assign(99, 1); }, "", ""},
    {"prompt_too_long", [](Request& r) { r.prompt.assign(100, 1); }, "prompt",
     "prompt has 100 tokens, must have at most 99 (the context is 100 tokens, and at least one is "
     "generated)"},
    {"prompt_negative_token", [](Request& r) { r.prompt[3] = -1; }, "prompt[3]",
     "prompt[3] is -1, must be a token from 0 to 255"},
    {"prompt_token_past_vocabulary", [](Request& r) { r.prompt[9] = 256; }, "prompt[9]",
     "prompt[9] is 256, must be a token from 0 to 255"},
    {"prompt_last_token_of_vocabulary", [](Request& r) { r.prompt[9] = 255; }, "", ""},

    {"max_tokens_none", [](Request& r) { r.max_tokens.reset(); }, "", ""},
    {"max_tokens_zero", [](Request& r) { r.max_tokens = 0; }, "", ""},
    {"max_tokens_negative", [](Request& r) { r.max_tokens = -3; }, "max_tokens",
     "max_tokens is -3, must be at least 0"},
    {"max_tokens_past_context", [](Request& r) { r.max_tokens = 2147483647; }, "", ""},

    {"temperature_zero", [](Request& r) { r.sampling.temperature = 0; }, "", ""},
    {"temperature_highest", [](Request& r) { r.sampling.temperature = 2; }, "", ""},
    {"temperature_nan", [](Request& r) { r.sampling.temperature = kNan; }, "temperature",
     "temperature is nan, must be a number from 0 to 2"},
    {"temperature_negative_nan", [](Request& r) { r.sampling.temperature = -kNan; }, "temperature",
     "temperature is nan, must be a number from 0 to 2"},
    {"temperature_infinite", [](Request& r) { r.sampling.temperature = kInf; }, "temperature",
     "temperature is inf, must be a number from 0 to 2"},
    {"temperature_negative", [](Request& r) { r.sampling.temperature = -0.5F; }, "temperature",
     "temperature is -0.5, must be a number from 0 to 2"},
    {"temperature_high", [](Request& r) { r.sampling.temperature = 2.1F; }, "temperature",
     "temperature is 2.1, must be a number from 0 to 2"},

    {"top_k_negative", [](Request& r) { r.sampling.top_k = -1; }, "top_k",
     "top_k is -1, must be at least 0 (0: all)"},
    {"top_k_past_vocabulary", [](Request& r) { r.sampling.top_k = 1000000; }, "", ""},
    {"top_p_zero", [](Request& r) { r.sampling.top_p = 0; }, "top_p",
     "top_p is 0, must be a number greater than 0 and at most 1"},
    {"top_p_nan", [](Request& r) { r.sampling.top_p = kNan; }, "top_p",
     "top_p is nan, must be a number greater than 0 and at most 1"},
    {"top_p_high", [](Request& r) { r.sampling.top_p = 1.5F; }, "top_p",
     "top_p is 1.5, must be a number greater than 0 and at most 1"},
    {"min_p_negative", [](Request& r) { r.sampling.min_p = -0.1F; }, "min_p",
     "min_p is -0.1, must be a number from 0 to 1"},
    {"min_p_nan", [](Request& r) { r.sampling.min_p = kNan; }, "min_p",
     "min_p is nan, must be a number from 0 to 1"},
    {"min_p_one", [](Request& r) { r.sampling.min_p = 1; }, "", ""},

    {"repetition_penalty_zero", [](Request& r) { r.sampling.repetition_penalty = 0; },
     "repetition_penalty", "repetition_penalty is 0, must be a number from 0.01 to 100"},
    {"repetition_penalty_infinite", [](Request& r) { r.sampling.repetition_penalty = kInf; },
     "repetition_penalty", "repetition_penalty is inf, must be a number from 0.01 to 100"},
    {"presence_penalty_low", [](Request& r) { r.sampling.presence_penalty = -2.5F; },
     "presence_penalty", "presence_penalty is -2.5, must be a number from -2 to 2"},
    {"presence_penalty_lowest", [](Request& r) { r.sampling.presence_penalty = -2; }, "", ""},
    {"frequency_penalty_nan", [](Request& r) { r.sampling.frequency_penalty = kNan; },
     "frequency_penalty", "frequency_penalty is nan, must be a number from -2 to 2"},
    {"frequency_penalty_high", [](Request& r) { r.sampling.frequency_penalty = 3; },
     "frequency_penalty", "frequency_penalty is 3, must be a number from -2 to 2"},

    {"top_logprobs_most", [](Request& r) { r.sampling.top_logprobs = 20; }, "", ""},
    {"top_logprobs_high", [](Request& r) { r.sampling.top_logprobs = 21; }, "top_logprobs",
     "top_logprobs is 21, must be from 0 to 20"},
    {"top_logprobs_negative", [](Request& r) { r.sampling.top_logprobs = -2; }, "top_logprobs",
     "top_logprobs is -2, must be from 0 to 20"},
    {"prompt_logprobs_most", [](Request& r) { r.prompt_logprobs = 20; }, "", ""},
    {"prompt_logprobs_high", [](Request& r) { r.prompt_logprobs = 21; }, "prompt_logprobs",
     "prompt_logprobs is 21, must be from 0 to 20"},
    {"logit_bias_widest",
     [](Request& r) {
       r.sampling.logit_bias = {{0, -100.0F}, {255, 100.0F}};
     },
     "", ""},
    {"logit_bias_token",
     [](Request& r) {
       r.sampling.logit_bias = {{1, 0.0F}, {256, 1.0F}};
     },
     "logit_bias", "logit_bias has token 256, must be from 0 to 255"},
    {"logit_bias_high",
     [](Request& r) {
       r.sampling.logit_bias = {{1, 101.0F}};
     },
     "logit_bias.1", "logit_bias.1 is 101, must be a number from -100 to 100"},
    {"logit_bias_nan",
     [](Request& r) {
       r.sampling.logit_bias = {{1, kNan}};
     },
     "logit_bias.1", "logit_bias.1 is nan, must be a number from -100 to 100"},

    {"stop_most", [](Request& r) { r.stop.assign(16, std::string(1024, 'x')); }, "", ""},
    {"stop_many", [](Request& r) { r.stop.assign(17, "x"); }, "stop",
     "stop has 17 strings, must have at most 16"},
    {"stop_empty",
     [](Request& r) {
       r.stop = {"x", ""};
     },
     "stop[1]", "stop[1] has 0 bytes, must have from 1 to 1024"},
    {"stop_long", [](Request& r) { r.stop = {std::string(1025, 'x')}; }, "stop[0]",
     "stop[0] has 1025 bytes, must have from 1 to 1024"},
    {"stop_half_character", [](Request& r) { r.stop = {"\xC3"}; }, "stop[0]",
     "stop[0] is not valid UTF-8"},
    {"stop_tokens_most", [](Request& r) { r.stop_tokens.assign(256, 1); }, "", ""},
    {"stop_tokens_many", [](Request& r) { r.stop_tokens.assign(257, 1); }, "stop_token_ids",
     "stop_token_ids has 257 tokens, must have at most 256"},
    {"stop_tokens_vocabulary", [](Request& r) { r.stop_tokens = {-5}; }, "stop_token_ids",
     "stop_token_ids has token -5, must be from 0 to 255"},

    {"priority_highest", [](Request& r) { r.priority = -100; }, "", ""},
    {"priority_past_the_highest", [](Request& r) { r.priority = -101; }, "priority",
     "priority is -101, must be from -100 to 100"},
    {"priority_past_the_lowest", [](Request& r) { r.priority = 101; }, "priority",
     "priority is 101, must be from -100 to 100"},

    {"prefill_block_not_of_pages",
     [](Request& r) { r.attention.prefill = AttentionPolicy::moba(6, 2); },
     "attention.prefill.block",
     "attention.prefill.block is 6, must be a positive multiple of the page (4 tokens)"},
    {"decode_block_zero", [](Request& r) { r.attention.decode = AttentionPolicy::moba(0, 2); },
     "attention.decode.block",
     "attention.decode.block is 0, must be a positive multiple of the page (4 tokens)"},
    {"decode_top_k_zero", [](Request& r) { r.attention.decode = AttentionPolicy::moba(8, 0); },
     "attention.decode.top_k", "attention.decode.top_k is 0, must be at least 1"},
    {"all_layers_full", [](Request& r) { r.attention.full_attention_last_layers = 4; }, "", ""},
    {"more_layers_than_there_are", [](Request& r) { r.attention.full_attention_last_layers = 5; },
     "attention.full_attention_last_layers",
     "attention.full_attention_last_layers is 5, must be from 0 to 4"},
    {"negative_layers", [](Request& r) { r.attention.full_attention_last_layers = -1; },
     "attention.full_attention_last_layers",
     "attention.full_attention_last_layers is -1, must be from 0 to 4"},
};

TEST(ValidateAttention, NeedsNoRequest) {
  EXPECT_TRUE(validate(AttentionSettings{AttentionPolicy::moba(8, 2), {}, 3}, 3, 4).ok());
  const Status layers = validate(AttentionSettings{{}, {}, 99}, 3, 4);
  EXPECT_EQ(layers.message(), "attention.full_attention_last_layers is 99, must be from 0 to 3");
  EXPECT_EQ(validate(AttentionSettings{{}, AttentionPolicy::moba(6, 2), 0}, 3, 4).field(),
            "attention.decode.block");
}

TEST(Status, AnotherNameForTheField) {
  const Status status = Status::invalid("top_logprobs", "top_logprobs is 21, must be at most 20");
  const Status renamed = status.with_field("logprobs");
  EXPECT_EQ(renamed.code(), StatusCode::invalid_argument);
  EXPECT_EQ(renamed.field(), "logprobs");
  EXPECT_EQ(renamed.message(), "logprobs is 21, must be at most 20");
  EXPECT_EQ(Status(StatusCode::internal, "no field").with_field("x").message(), "no field");
}

INSTANTIATE_TEST_SUITE_P(Requests, Validate, testing::ValuesIn(kCases),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace mobius
