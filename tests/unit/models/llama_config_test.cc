#include "models/llama_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/unit/models/scratch.h"

namespace mobius {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

/// Llama 3.1 8B's numbers.
json valid_config() {
  return json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu", "hidden_size": 4096,
    "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": false,
    "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "vocab_size": 128256})");
}

LlamaConfig load(const json& config, const char* generation = nullptr) {
  const ScratchFolder folder;
  folder.write("config.json", config.dump());
  if (generation != nullptr) folder.write("generation_config.json", generation);
  return load_llama_config(folder.path());
}

std::string refusal(const char* key, const json& value) {
  json config = valid_config();
  config[key] = value;
  return message_of([&] { load(config); });
}

TEST(LlamaConfig, ReadsLlama31) {
  const LlamaConfig config = load(valid_config());
  EXPECT_EQ(config.hidden_size, 4096);
  EXPECT_EQ(config.intermediate_size, 14336);
  EXPECT_EQ(config.num_layers, 32);
  EXPECT_EQ(config.num_heads, 32);
  EXPECT_EQ(config.num_kv_heads, 8);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.vocab_size, 128256);
  EXPECT_EQ(config.max_position_embeddings, 131072);
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-5F);
  EXPECT_FLOAT_EQ(config.rope_theta, 500000.0F);
  ASSERT_TRUE(config.rope_scaling);
  EXPECT_EQ(config.rope_scaling->original_max_position_embeddings, 8192);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.dtype, DType::bf16);
  EXPECT_EQ(config.bos_token, 128000);
  EXPECT_THAT(config.eos_tokens, ElementsAre(128001, 128008, 128009));
}

TEST(LlamaConfig, FillsInDefaults) {
  json config = valid_config();
  for (const char* key : {"num_key_value_heads", "rope_scaling", "rope_theta", "torch_dtype",
                          "tie_word_embeddings", "architectures", "bos_token_id", "hidden_act"}) {
    config.erase(key);
  }
  config["eos_token_id"] = nullptr;
  const LlamaConfig loaded = load(config);
  EXPECT_EQ(loaded.num_kv_heads, 32);
  EXPECT_FALSE(loaded.rope_scaling);
  EXPECT_FLOAT_EQ(loaded.rope_theta, 10000.0F);
  EXPECT_EQ(loaded.bos_token, -1);
  EXPECT_TRUE(loaded.eos_tokens.empty());
}

TEST(LlamaConfig, TakesOtherSpellings) {
  json config = valid_config();
  config["head_dim"] = 64;
  config["eos_token_id"] = 2;
  config["rope_scaling"] = {{"type", "default"}};
  config.erase("torch_dtype");
  config["dtype"] = "float16";
  LlamaConfig loaded = load(config);
  EXPECT_EQ(loaded.head_dim, 64);
  EXPECT_THAT(loaded.eos_tokens, ElementsAre(2));
  EXPECT_FALSE(loaded.rope_scaling);
  EXPECT_EQ(loaded.dtype, DType::f16);

  // As transformers 5 writes it.
  config = valid_config();
  config["rope_parameters"] = config["rope_scaling"];
  config["rope_parameters"]["rope_theta"] = 250000.0;
  config.erase("rope_scaling");
  config.erase("rope_theta");
  loaded = load(config);
  EXPECT_FLOAT_EQ(loaded.rope_theta, 250000.0F);
  EXPECT_TRUE(loaded.rope_scaling);
}

TEST(LlamaConfig, GenerationConfigDecidesEndTokens) {
  EXPECT_THAT(load(valid_config(), R"({"eos_token_id": 7})").eos_tokens, ElementsAre(7));
  EXPECT_THAT(load(valid_config(), "{}").eos_tokens, ElementsAre(128001, 128008, 128009));
  EXPECT_THAT(message_of([] { load(valid_config(), R"({"eos_token_id": 128256})"); }),
              HasSubstr("generation_config.json: eos_token_id is 128256, expected token ids from 0 "
                        "to 128255"));
  EXPECT_THAT(message_of([] { load(valid_config(), "[]"); }), HasSubstr("expected a JSON object"));
}

TEST(LlamaConfig, RefusesMissingKeys) {
  for (const char* key :
       {"model_type", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "vocab_size", "max_position_embeddings", "rms_norm_eps"}) {
    json config = valid_config();
    config.erase(key);
    EXPECT_THAT(message_of([&] { load(config); }),
                HasSubstr("config.json: " + std::string(key) + " is missing, expected "));
  }
}

TEST(LlamaConfig, RefusesWrongTypesAndRanges) {
  EXPECT_THAT(refusal("hidden_size", "big"),
              HasSubstr("hidden_size is \"big\", expected an integer from 1 to 131072"));
  EXPECT_THAT(refusal("hidden_size", 4096.0), HasSubstr("expected an integer"));
  EXPECT_THAT(refusal("hidden_size", 0), HasSubstr("hidden_size is 0"));
  EXPECT_THAT(refusal("hidden_size", -4096), HasSubstr("hidden_size is -4096"));
  EXPECT_THAT(refusal("hidden_size", 4294971392U), HasSubstr("hidden_size is 4294971392"));
  EXPECT_THAT(refusal("vocab_size", 18446744073709551615U), HasSubstr("vocab_size is 1844674407"));
  EXPECT_THAT(refusal("rms_norm_eps", 0), HasSubstr("rms_norm_eps is 0, expected a number from"));
  EXPECT_THAT(refusal("rms_norm_eps", "small"), HasSubstr("rms_norm_eps is \"small\""));
  EXPECT_THAT(refusal("rope_theta", -1.0), HasSubstr("rope_theta is -1.0"));
  EXPECT_THAT(refusal("tie_word_embeddings", 1), HasSubstr("expected true or false"));
  EXPECT_THAT(refusal("bos_token_id", 128256), HasSubstr("bos_token_id is 128256"));
  EXPECT_THAT(refusal("eos_token_id", json::array({1, "x"})), HasSubstr("expected token ids"));
  EXPECT_THAT(refusal("torch_dtype", "int8"), HasSubstr("torch_dtype is \"int8\""));
  EXPECT_THAT(refusal("rope_scaling", 8), HasSubstr("rope_scaling is 8, expected an object"));
}

TEST(LlamaConfig, RefusesShapesThatDoNotDivide) {
  EXPECT_THAT(
      refusal("num_key_value_heads", 5),
      HasSubstr("num_key_value_heads is 5, expected a divisor of num_attention_heads (32)"));
  EXPECT_THAT(refusal("num_key_value_heads", 64), HasSubstr("from 1 to 32"));
  EXPECT_THAT(refusal("hidden_size", 4100),
              HasSubstr("expected a multiple of num_attention_heads (32)"));
  EXPECT_THAT(refusal("head_dim", 63), HasSubstr("head_dim is 63, expected an even head_dim"));
  EXPECT_THAT(refusal("hidden_size", 96), HasSubstr("expected an even head_dim (it is 3)"));
}

TEST(LlamaConfig, RefusesWhatItCannotCompute) {
  EXPECT_THAT(refusal("model_type", "mistral"),
              HasSubstr("model_type is \"mistral\", expected \"llama\""));
  EXPECT_THAT(refusal("architectures", json::array({"LlamaForSequenceClassification"})),
              HasSubstr("a list with \"LlamaForCausalLM\""));
  EXPECT_THAT(refusal("hidden_act", "gelu"), HasSubstr("hidden_act is \"gelu\""));
  EXPECT_THAT(refusal("attention_bias", true), HasSubstr("attention_bias is true, expected false"));
  EXPECT_THAT(refusal("mlp_bias", true), HasSubstr("mlp_bias is true, expected false"));
  EXPECT_THAT(refusal("quantization_config", {{"quant_method", "awq"}}),
              HasSubstr("quantization_config is {\"quant_method\":\"awq\"}, expected none"));
}

TEST(LlamaConfig, RefusesUnknownRopeScaling) {
  const auto with = [](const char* key, const json& value) {
    json scaling = valid_config()["rope_scaling"];
    scaling[key] = value;
    return refusal("rope_scaling", scaling);
  };
  EXPECT_THAT(with("rope_type", "yarn"),
              HasSubstr("rope_scaling: rope_type is \"yarn\", expected \"llama3\" or \"default\""));
  EXPECT_THAT(with("factor", nullptr), HasSubstr("factor is missing"));
  EXPECT_THAT(with("factor", 0.5), HasSubstr("factor is 0.5"));
  EXPECT_THAT(with("high_freq_factor", 1.0), HasSubstr("expected more than low_freq_factor"));
  EXPECT_THAT(with("original_max_position_embeddings", 0), HasSubstr("is 0, expected"));
}

TEST(LlamaConfig, RefusesUnreadableFiles) {
  const ScratchFolder folder;
  EXPECT_THAT(message_of([&] { load_llama_config(folder.path()); }),
              HasSubstr("config.json: cannot open: No such file"));
  folder.write("config.json", "{\"hidden_size\": 1,");
  EXPECT_THAT(message_of([&] { load_llama_config(folder.path()); }),
              StartsWith((folder.path() / "config.json: not valid JSON at byte").string()));
  folder.write("config.json", R"({"hidden_size": 1, "hidden_size": 2})");
  EXPECT_THAT(message_of([&] { load_llama_config(folder.path()); }), HasSubstr("appears twice"));
}

TEST(RopeFrequencies, DefaultIsTheGeometricSeries) {
  LlamaConfig config;
  config.head_dim = 8;
  config.rope_theta = 10000.0F;
  const std::vector<float> frequencies = rope_inverse_frequencies(config);
  ASSERT_EQ(frequencies.size(), 4U);
  EXPECT_FLOAT_EQ(frequencies[0], 1.0F);
  EXPECT_FLOAT_EQ(frequencies[1], 0.1F);
  EXPECT_FLOAT_EQ(frequencies[3], 0.001F);
}

TEST(RopeFrequencies, Llama3ScalingHasThreeRanges) {
  const LlamaConfig config = load(valid_config());
  LlamaConfig plain = config;
  plain.rope_scaling.reset();
  const std::vector<float> scaled = rope_inverse_frequencies(config);
  const std::vector<float> unscaled = rope_inverse_frequencies(plain);
  ASSERT_EQ(scaled.size(), 64U);
  // transformers' values for Llama 3.1 8B: short wavelengths stay, long ones are divided by 8, and
  // indices 29 to 34 lie between.
  EXPECT_FLOAT_EQ(scaled[28], unscaled[28]);
  EXPECT_LT(scaled[29], unscaled[29]);
  EXPECT_GT(scaled[34], unscaled[34] / 8.0F);
  EXPECT_FLOAT_EQ(scaled[35], unscaled[35] / 8.0F);
  EXPECT_FLOAT_EQ(scaled[30], 0.0013718937F);
  EXPECT_FLOAT_EQ(scaled[33], 0.00031269365F);
  EXPECT_FLOAT_EQ(scaled[63], unscaled[63] / 8.0F);
}

}  // namespace
}  // namespace mobius
