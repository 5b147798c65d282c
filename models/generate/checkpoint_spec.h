#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/tensor.h"
#include "models/llama_config.h"

namespace mobius {

/// How the values of a generated tensor are distributed.
struct ValueSpec {
  float mean = 0.0F;
  float stddev = 0.0F;
};

/// One tensor of a generated checkpoint, under its Hugging Face name.
struct GeneratedTensor {
  std::string name;
  std::vector<std::int64_t> shape;  ///< [size] or [rows, cols]
  ValueSpec values;

  std::int64_t count() const;
};

/// The tensors of one file, in the order of their data.
struct ShardPlan {
  std::string file_name;
  std::vector<GeneratedTensor> tensors;
};

/// The architecture called "tiny", "1b" (Llama 3.2 1B's shape) or "8b" (Llama 3.1 8B's), with token
/// ids as `generated_tokens` assigns them. Throws std::invalid_argument for another name.
LlamaConfig shape_preset(std::string_view name);

/// Sets bos and eos to the ids that the generated tokenizer gives them for config.vocab_size.
/// Throws std::invalid_argument if the vocabulary is too small for the tokenizer.
void assign_tokens(LlamaConfig& config);

/// All tensors in the order in which Hugging Face's Llama lists them. Standard deviations are
/// chosen so that activations stay near 1 at any depth, attention has favourites among its keys,
/// and logits (standard deviation 4) have a clear first.
std::vector<GeneratedTensor> checkpoint_tensors(const LlamaConfig& config);

/// Spreads tensors over files as Hugging Face does: in order, a new shard where one would grow over
/// 5 GB; with `shards` > 0, that many of about equal size. Inside a file the data is in the order
/// of names. One shard is called model.safetensors.
std::vector<ShardPlan> plan_shards(const LlamaConfig& config, DType dtype, std::int32_t shards);

/// The safetensors header of a shard, length prefix included, padded to 8 bytes.
std::string safetensors_header(const ShardPlan& shard, DType dtype);

}  // namespace mobius
