#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kernels/tensor.h"

namespace mobius {

/// Llama 3.1's RoPE scaling ("rope_type": "llama3").
struct RopeScaling {
  float factor = 1.0F;
  float low_freq_factor = 1.0F;
  float high_freq_factor = 1.0F;
  std::int32_t original_max_position_embeddings = 0;
};

/// A Llama architecture, as Hugging Face's config.json states it.
struct LlamaConfig {
  std::int32_t hidden_size = 0;
  std::int32_t intermediate_size = 0;
  std::int32_t num_layers = 0;
  std::int32_t num_heads = 0;
  std::int32_t num_kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t vocab_size = 0;
  std::int32_t max_position_embeddings = 0;
  float rms_norm_eps = 1e-5F;
  float rope_theta = 10000.0F;
  std::optional<RopeScaling> rope_scaling;
  bool tie_word_embeddings = false;
  DType dtype = DType::bf16;  ///< "torch_dtype": how the checkpoint is stored
  std::int32_t bos_token = -1;
  std::vector<std::int32_t>
      eos_tokens;  ///< config.json's, or generation_config.json's where it has them
};

/// Reads config.json and generation_config.json of a checkpoint folder. Throws std::runtime_error
/// with one line that names the file, the key, and what was expected.
LlamaConfig load_llama_config(const std::filesystem::path& folder);

/// head_dim / 2 angular frequencies, Llama 3.1 scaling applied (transformers,
/// modeling_rope_utils.py, _compute_llama3_parameters).
std::vector<float> rope_inverse_frequencies(const LlamaConfig& config);

}  // namespace mobius
