#include "models/generate/checkpoint_spec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "models/generate/tokenizer_json.h"

namespace mobius {
namespace {

constexpr std::int64_t kMaxShardBytes = 5'000'000'000;

const char* safetensors_name(DType dtype) {
  switch (dtype) {
    case DType::f32: return "F32";
    case DType::bf16: return "BF16";
    case DType::f16: return "F16";
    case DType::e4m3: throw std::invalid_argument("checkpoints are f32, bf16 or f16");
  }
  return "";
}

std::int64_t bytes_of(const GeneratedTensor& tensor, DType dtype) {
  return tensor.count() * static_cast<std::int64_t>(size_of(dtype));
}

/// Groups of consecutive tensors, one for each shard.
std::vector<std::vector<GeneratedTensor>> group_tensors(std::vector<GeneratedTensor> tensors,
                                                        DType dtype, std::int32_t shards) {
  std::int64_t total = 0;
  for (const GeneratedTensor& tensor : tensors) total += bytes_of(tensor, dtype);
  std::vector<std::vector<GeneratedTensor>> groups;
  std::int64_t before = 0;  // bytes of all earlier tensors
  std::int64_t group_bytes = 0;
  for (GeneratedTensor& tensor : tensors) {
    const std::int64_t bytes = bytes_of(tensor, dtype);
    const bool full = shards > 0
                          ? before * shards >= total * static_cast<std::int64_t>(groups.size())
                          : group_bytes + bytes > kMaxShardBytes;
    if (groups.empty() || full) {
      groups.emplace_back();
      group_bytes = 0;
    }
    group_bytes += bytes;
    before += bytes;
    groups.back().push_back(std::move(tensor));
  }
  return groups;
}

}  // namespace

std::int64_t GeneratedTensor::count() const {
  std::int64_t product = 1;
  for (const std::int64_t size : shape) product *= size;
  return product;
}

LlamaConfig shape_preset(std::string_view name) {
  LlamaConfig config;
  config.rope_theta = 500000.0F;
  config.max_position_embeddings = 131072;
  config.rope_scaling = RopeScaling{.factor = 8.0F,
                                    .low_freq_factor = 1.0F,
                                    .high_freq_factor = 4.0F,
                                    .original_max_position_embeddings = 8192};
  if (name == "tiny") {
    config.hidden_size = 256;
    config.intermediate_size = 512;
    config.num_layers = 4;
    config.num_heads = 4;
    config.num_kv_heads = 1;
    config.head_dim = 64;
    config.vocab_size = smallest_vocabulary();
  } else if (name == "1b") {
    config.hidden_size = 2048;
    config.intermediate_size = 8192;
    config.num_layers = 16;
    config.num_heads = 32;
    config.num_kv_heads = 8;
    config.head_dim = 64;
    config.vocab_size = 128256;
    config.tie_word_embeddings = true;
    config.rope_scaling->factor = 32.0F;
  } else if (name == "8b") {
    config.hidden_size = 4096;
    config.intermediate_size = 14336;
    config.num_layers = 32;
    config.num_heads = 32;
    config.num_kv_heads = 8;
    config.head_dim = 128;
    config.vocab_size = 128256;
  } else {
    throw std::invalid_argument("shape is \"" + std::string(name) + "\", must be tiny, 1b or 8b");
  }
  assign_tokens(config);
  return config;
}

void assign_tokens(LlamaConfig& config) {
  if (config.vocab_size < smallest_vocabulary()) {
    throw std::invalid_argument("vocab is " + std::to_string(config.vocab_size) +
                                ", must be at least " + std::to_string(smallest_vocabulary()));
  }
  config.bos_token = special_token_id("<|begin_of_text|>", config.vocab_size);
  config.eos_tokens = {special_token_id("<|end_of_text|>", config.vocab_size),
                       special_token_id("<|eom_id|>", config.vocab_size),
                       special_token_id("<|eot_id|>", config.vocab_size)};
}

std::vector<GeneratedTensor> checkpoint_tensors(const LlamaConfig& config) {
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t ffn = config.intermediate_size;
  const std::int64_t query = std::int64_t{config.num_heads} * config.head_dim;
  const std::int64_t key = std::int64_t{config.num_kv_heads} * config.head_dim;
  const ValueSpec norm{1.0F, 0.1F};
  // Keeps the variance of what goes through the matrix, times gain^2.
  const auto matrix = [](std::int64_t fan_in, float gain) {
    return ValueSpec{0.0F, gain / std::sqrt(static_cast<float>(fan_in))};
  };
  constexpr float kLogitGain = 4.0F;
  constexpr float kQueryKeyGain = 1.75F;  // scores of standard deviation 3

  std::vector<GeneratedTensor> tensors;
  tensors.push_back({"model.embed_tokens.weight",
                     {config.vocab_size, hidden},
                     config.tie_word_embeddings ? matrix(hidden, kLogitGain) : ValueSpec{0, 1.0F}});
  for (std::int32_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const auto add = [&](const char* name, std::vector<std::int64_t> shape, ValueSpec values) {
      tensors.push_back({prefix + name + ".weight", std::move(shape), values});
    };
    add("self_attn.q_proj", {query, hidden}, matrix(hidden, kQueryKeyGain));
    add("self_attn.k_proj", {key, hidden}, matrix(hidden, kQueryKeyGain));
    add("self_attn.v_proj", {key, hidden}, matrix(hidden, 1.0F));
    add("self_attn.o_proj", {hidden, query}, matrix(query, 1.0F));
    add("mlp.gate_proj", {ffn, hidden}, matrix(hidden, 1.0F));
    add("mlp.up_proj", {ffn, hidden}, matrix(hidden, 1.0F));
    add("mlp.down_proj", {hidden, ffn}, matrix(ffn, 1.0F));
    add("input_layernorm", {hidden}, norm);
    add("post_attention_layernorm", {hidden}, norm);
  }
  tensors.push_back({"model.norm.weight", {hidden}, norm});
  if (!config.tie_word_embeddings) {
    tensors.push_back({"lm_head.weight", {config.vocab_size, hidden}, matrix(hidden, kLogitGain)});
  }
  return tensors;
}

std::vector<ShardPlan> plan_shards(const LlamaConfig& config, DType dtype, std::int32_t shards) {
  auto groups = group_tensors(checkpoint_tensors(config), dtype, shards);
  std::vector<ShardPlan> plan;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    std::array<char, 64> name{};
    std::snprintf(name.data(), name.size(), "model-%05zu-of-%05zu.safetensors", i + 1,
                  groups.size());
    std::sort(groups[i].begin(), groups[i].end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    plan.push_back({groups.size() == 1 ? "model.safetensors" : name.data(), std::move(groups[i])});
  }
  return plan;
}

std::string safetensors_header(const ShardPlan& shard, DType dtype) {
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};
  std::int64_t offset = 0;
  for (const GeneratedTensor& tensor : shard.tensors) {
    const std::int64_t end = offset + bytes_of(tensor, dtype);
    header[tensor.name] = {{"dtype", safetensors_name(dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string prefix;
  for (std::size_t i = 0; i < 8; ++i) prefix += static_cast<char>(text.size() >> (8 * i) & 0xFF);
  return prefix + text;
}

}  // namespace mobius
