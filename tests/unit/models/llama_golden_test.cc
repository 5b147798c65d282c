// Logits and greedy tokens against Hugging Face transformers; see
// tests/golden/make_llama_golden.py.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/generate/checkpoint_spec.h"
#include "models/generate/write_checkpoint.h"
#include "models/llama_runner.h"
#include "tests/unit/models/scratch.h"
#include "tests/unit/models/sequence.h"

namespace mobius {
namespace {

using nlohmann::json;

constexpr double kTolerance = 1e-4;  // of the row's largest logit
constexpr std::int32_t kPageTokens = 16;

json read_golden(const std::string& name) {
  return json::parse(
      read_file(std::string(MOBIUS_SOURCE_DIR) + "/tests/golden/llama_" + name + ".json"));
}

/// The checkpoint that the golden file describes in the generator's own options.
void make_checkpoint(const json& wanted, const ScratchFolder& folder) {
  LlamaConfig config = shape_preset(wanted.at("shape").get<std::string>());
  config.num_layers = wanted.at("layers");
  config.hidden_size = wanted.at("hidden");
  config.num_heads = wanted.at("heads");
  config.num_kv_heads = wanted.at("kv-heads");
  config.head_dim = wanted.at("head-dim");
  config.intermediate_size = wanted.at("intermediate");
  config.max_position_embeddings = wanted.at("context");
  config.tie_word_embeddings = wanted.value("tied", "false") == "true";
  const std::int32_t original = wanted.at("original-context");
  if (original == 0) {
    config.rope_scaling.reset();
  } else {
    config.rope_scaling->original_max_position_embeddings = original;
  }
  write_checkpoint(config, {.seed = wanted.at("seed"), .dtype = DType::f32}, folder.path());
}

struct Case {
  const char* name;
  std::size_t chunk;
};

class LlamaGolden : public testing::TestWithParam<Case> {};

TEST_P(LlamaGolden, LogitsAndGreedyTokensEqualTransformers) {
  const json golden = read_golden(GetParam().name);
  const ScratchFolder folder;
  make_checkpoint(golden.at("checkpoint"), folder);
  ModelOptions options;
  options.folder = folder.path();
  options.page_tokens = kPageTokens;
  options.max_sequences = 512;  // logits of every row of a step
  options.centroid_block = GetParam().chunk == 300 ? 16 : 0;
  const auto runner = load_llama(options);
  EXPECT_EQ(runner->plan().model.activation, DType::f32);

  Sequence sequence{.pages = Sequence::page_range(0, 24)};
  AttentionPolicy decode = AttentionPolicy::full();
  if (golden.contains("moba")) {
    const json& moba = golden.at("moba");
    sequence.policy = AttentionPolicy::moba(moba.at("block"), moba.at("top_k"));
    sequence.full_attention_last_layers = moba.at("full_attention_last_layers");
    if (moba.at("decode") == "moba") decode = sequence.policy;
  }
  const auto prompt = golden.at("prompt").get<std::vector<std::int32_t>>();
  const std::vector<float> logits = logits_of(*runner, sequence, prompt, GetParam().chunk);

  const auto vocab = static_cast<std::size_t>(runner->config().vocab_size);
  const auto positions = golden.at("positions").get<std::vector<std::size_t>>();
  double worst = 0;
  for (std::size_t i = 0; i < positions.size(); ++i) {
    const auto expected = golden.at("logits")[i].get<std::vector<double>>();
    ASSERT_EQ(expected.size(), vocab);
    double largest = 0;
    double difference = 0;
    for (std::size_t token = 0; token < vocab; ++token) {
      largest = std::max(largest, std::fabs(expected[token]));
      difference = std::max(
          difference, std::fabs(double{logits[positions[i] * vocab + token]} - expected[token]));
    }
    EXPECT_LE(difference, kTolerance * largest) << "at position " << positions[i];
    worst = std::max(worst, difference / largest);
  }
  RecordProperty("relative_error", std::to_string(worst));

  std::vector<std::int32_t> greedy;
  const std::span<const float> all(logits);
  std::int32_t token = best_token(all.last(vocab));
  sequence.policy = decode;
  const std::size_t wanted = golden.at("greedy").size();
  for (;;) {
    greedy.push_back(token);
    if (greedy.size() == wanted) break;
    token = best_token(logits_of(*runner, sequence, std::span(&token, 1), 1));
  }
  EXPECT_EQ(greedy, golden.at("greedy").get<std::vector<std::int32_t>>());
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  return std::string(info.param.name) + "_in_chunks_of_" + std::to_string(info.param.chunk);
}

INSTANTIATE_TEST_SUITE_P(All, LlamaGolden,
                         testing::Values(Case{"full", 300}, Case{"full", 37},
                                         Case{"full_tied", 300}, Case{"full_tied", 64},
                                         Case{"moba", 300}, Case{"moba", 37}, Case{"moba", 16},
                                         Case{"moba_full_decode", 300},
                                         Case{"moba_full_decode", 37}),
                         case_name);

}  // namespace
}  // namespace mobius
