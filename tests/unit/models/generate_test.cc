#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/checkpoint.h"
#include "models/generate/checkpoint_spec.h"
#include "models/generate/random_values.h"
#include "models/generate/tokenizer_json.h"
#include "models/generate/write_checkpoint.h"
#include "models/llama.h"
#include "models/llama_config.h"
#include "tests/unit/models/scratch.h"

namespace mobius {
namespace {

using testing::HasSubstr;

std::string file_in(const ScratchFolder& folder, const char* name) {
  return read_file(folder.path() / name);
}

TEST(Generate, SameSeedSameBytes) {
  const ScratchFolder one;
  const ScratchFolder two;
  const ScratchFolder other;
  const LlamaConfig config = shape_preset("tiny");
  write_checkpoint(config, {.seed = 7, .threads = 1}, one.path());
  write_checkpoint(config, {.seed = 7, .threads = 3}, two.path());
  write_checkpoint(config, {.seed = 8}, other.path());
  for (const char* name :
       {"model.safetensors", "config.json", "tokenizer.json", "generation_config.json"}) {
    EXPECT_EQ(file_in(one, name), file_in(two, name)) << name;
    EXPECT_FALSE(file_in(one, name).empty()) << name;
  }
  EXPECT_NE(file_in(one, "model.safetensors"), file_in(other, "model.safetensors"));
}

TEST(Generate, LoaderReadsBackWhatWasWritten) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    const ScratchFolder folder;
    LlamaConfig config = shape_preset("tiny");
    config.tie_word_embeddings = dtype == DType::f16;
    write_checkpoint(config, {.dtype = dtype, .shards = 3}, folder.path());
    const LlamaConfig loaded = load_llama_config(folder.path());
    EXPECT_EQ(loaded.hidden_size, config.hidden_size);
    EXPECT_EQ(loaded.num_layers, config.num_layers);
    EXPECT_EQ(loaded.rms_norm_eps, config.rms_norm_eps);
    EXPECT_EQ(loaded.rope_theta, config.rope_theta);
    EXPECT_EQ(loaded.rope_scaling->factor, config.rope_scaling->factor);
    EXPECT_EQ(loaded.tie_word_embeddings, config.tie_word_embeddings);
    EXPECT_EQ(loaded.dtype, dtype);
    EXPECT_EQ(loaded.eos_tokens, config.eos_tokens);
    const Checkpoint checkpoint(folder.path());
    EXPECT_EQ(checkpoint.files().size(), 3U);
    const WeightMemory memory = check_weights(loaded, checkpoint, dtype);
    EXPECT_GT(memory.mapped_bytes, 4'000'000U);
    // fp8: a byte and, for each row, a scale, in all but embedding and norms.
    const WeightMemory quantised = check_weights(loaded, checkpoint, dtype, true);
    const std::int64_t query = std::int64_t{loaded.num_heads} * loaded.head_dim;
    const std::int64_t kv = std::int64_t{loaded.num_kv_heads} * loaded.head_dim;
    const std::int64_t hidden = loaded.hidden_size;
    const std::int64_t inner = loaded.intermediate_size;
    const std::int64_t head = loaded.tie_word_embeddings ? 0 : loaded.vocab_size;
    const std::int64_t elements =
        loaded.num_layers * (2 * (query + kv) * hidden + 3 * inner * hidden) + head * hidden;
    const std::int64_t rows =
        loaded.num_layers * (query + 2 * kv + hidden + 2 * inner + hidden) + head;
    EXPECT_EQ(memory.mapped_bytes + memory.copied_bytes -
                  (quantised.mapped_bytes + quantised.copied_bytes),
              static_cast<std::size_t>(elements) * (size_of(dtype) - 1) -
                  static_cast<std::size_t>(rows) * 4);
  }
}

TEST(Generate, ShardingAndTypeDoNotChangeValues) {
  const std::uint64_t key = tensor_key(3, "model.norm.weight");
  std::vector<float> whole(1000);
  std::vector<float> part(10);
  const ValueSpec spec{1.0F, 0.1F};
  fill_values(std::as_writable_bytes(std::span(whole)), DType::f32, key, 0, spec);
  fill_values(std::as_writable_bytes(std::span(part)), DType::f32, key, 500, spec);
  EXPECT_EQ(std::memcmp(part.data(), whole.data() + 500, 40), 0);

  std::vector<std::uint16_t> rounded(1000);
  fill_values(std::as_writable_bytes(std::span(rounded)), DType::bf16, key, 0, spec);
  for (std::size_t i = 0; i < whole.size(); ++i) {
    const std::uint32_t bits = std::uint32_t{rounded[i]} << 16;
    float value = 0;
    std::memcpy(&value, &bits, 4);
    EXPECT_NEAR(value, whole[i], std::fabs(whole[i]) / 256);
  }
}

#ifdef __FLT16_MAX__
TEST(Generate, HalfRoundingIsTheCompilers) {
  for (const float stddev : {1.0F, 1e-3F, 1e-5F, 1e-7F, 1e-9F}) {
    std::vector<float> exact(2000);
    std::vector<std::uint16_t> half(2000);
    const ValueSpec spec{0.0F, stddev};
    fill_values(std::as_writable_bytes(std::span(exact)), DType::f32, 1, 0, spec);
    fill_values(std::as_writable_bytes(std::span(half)), DType::f16, 1, 0, spec);
    for (std::size_t i = 0; i < exact.size(); ++i) {
      const auto expected = static_cast<_Float16>(exact[i]);
      EXPECT_EQ(std::memcmp(&half[i], &expected, 2), 0) << exact[i];
    }
  }
}
#endif

TEST(Generate, ValuesHaveTheSpreadAskedFor) {
  std::vector<float> values(200'000);
  fill_values(std::as_writable_bytes(std::span(values)), DType::f32, tensor_key(1, "x"), 0,
              {0.0F, 0.5F});
  double sum = 0;
  double squares = 0;
  for (const float value : values) {
    sum += value;
    squares += double{value} * value;
  }
  const auto count = static_cast<double>(values.size());
  EXPECT_NEAR(sum / count, 0.0, 0.01);
  EXPECT_NEAR(std::sqrt(squares / count), 0.5, 0.01);
}

/// Every id has a token, and every merge makes one from two: what a tokenizer needs to load it.
class GeneratedVocabulary : public testing::TestWithParam<const char*> {};

TEST_P(GeneratedVocabulary, IsCompleteAndItsMergesAreSound) {
  const LlamaConfig config = shape_preset(GetParam());
  const auto json = nlohmann::json::parse(tokenizer_json(config.vocab_size));
  const auto& vocabulary = json["model"]["vocab"];
  std::vector<bool> seen(static_cast<std::size_t>(config.vocab_size));
  const auto mark = [&](std::size_t id) {
    ASSERT_LT(id, seen.size());
    EXPECT_FALSE(seen[id]) << id;
    seen[id] = true;
  };
  for (const auto& [text, id] : vocabulary.items()) mark(id.get<std::size_t>());
  for (const auto& token : json["added_tokens"]) mark(token["id"].get<std::size_t>());
  EXPECT_THAT(seen, testing::Each(true));
  for (const auto& merge : json["model"]["merges"]) {
    const auto text = merge.get<std::string>();
    const std::size_t space = text.find(' ');
    EXPECT_TRUE(vocabulary.contains(text.substr(0, space))) << text;
    EXPECT_TRUE(vocabulary.contains(text.substr(space + 1))) << text;
    EXPECT_TRUE(vocabulary.contains(text.substr(0, space) + text.substr(space + 1))) << text;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, GeneratedVocabulary, testing::Values("tiny", "1b"),
                         [](const auto& tested) { return std::string(tested.param); });

TEST(Generate, LargeVocabularyHasLlamasSpecialIds) {
  const std::map<std::string, std::int32_t> expected = {{"<|begin_of_text|>", 128000},
                                                        {"<|end_of_text|>", 128001},
                                                        {"<|finetune_right_pad_id|>", 128004},
                                                        {"<|start_header_id|>", 128006},
                                                        {"<|end_header_id|>", 128007},
                                                        {"<|eom_id|>", 128008},
                                                        {"<|eot_id|>", 128009},
                                                        {"<|python_tag|>", 128010},
                                                        {"<|reserved_special_token_3|>", 128011},
                                                        {"<|reserved_special_token_247|>", 128255}};
  for (const auto& [name, id] : expected) EXPECT_EQ(special_token_id(name, 128256), id) << name;
  EXPECT_EQ(shape_preset("8b").eos_tokens, (std::vector<std::int32_t>{128001, 128008, 128009}));
}

TEST(Generate, RefusesWhatItCannotMake) {
  EXPECT_THAT(message_of([] { shape_preset("70b"); }), HasSubstr("must be tiny, 1b or 8b"));
  LlamaConfig config = shape_preset("tiny");
  config.vocab_size = 300;
  EXPECT_THAT(message_of([&] { assign_tokens(config); }),
              HasSubstr("vocab is 300, must be at least"));
  const ScratchFolder folder;
  const auto file = folder.write("file", "");
  EXPECT_THAT(message_of([&] { write_checkpoint(shape_preset("tiny"), {}, file / "below"); }),
              HasSubstr("cannot create the folder"));
}

/// Llama 3.1 8B's published shard layout.
TEST(Generate, EightBillionMatchesThePublishedLayout) {
  const char* variable = std::getenv("MOBIUS_TEST_DATA");
  const std::filesystem::path data =
      variable != nullptr ? variable : std::string(MOBIUS_SOURCE_DIR) + "/../shared/data";
  const auto shards_file = data / "llama3.1/llama31_8b_shards.json";
  const auto index_file = data / "llama3.1/model.safetensors.index.json";
  if (!std::filesystem::exists(shards_file)) {
    GTEST_SKIP() << shards_file << " is missing (set MOBIUS_TEST_DATA)";
  }
  const auto published = nlohmann::json::parse(read_file(shards_file));
  const auto index = nlohmann::json::parse(read_file(index_file))["weight_map"];
  const std::vector<ShardPlan> shards = plan_shards(shape_preset("8b"), DType::bf16, 0);
  ASSERT_EQ(shards.size(), published["shards"].size());
  std::size_t tensors = 0;
  for (const ShardPlan& shard : shards) {
    const auto& expected = published["shards"].at(shard.file_name);
    std::int64_t data_bytes = 0;
    for (const GeneratedTensor& tensor : shard.tensors) {
      EXPECT_EQ(index.at(tensor.name), shard.file_name) << tensor.name;
      EXPECT_EQ(published["tensor_shapes_bf16"].at(tensor.name), tensor.shape) << tensor.name;
      data_bytes += 2 * tensor.count();
      ++tensors;
    }
    EXPECT_EQ(data_bytes, expected["data_bytes"].get<std::int64_t>());
    const std::string header = safetensors_header(shard, DType::bf16);
    EXPECT_EQ(header.size() - 8, expected["header_bytes"].get<std::size_t>());
  }
  EXPECT_EQ(tensors, index.size());
}

}  // namespace
}  // namespace mobius
