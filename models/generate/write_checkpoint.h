#pragma once

#include <cstdint>
#include <filesystem>

#include "kernels/tensor.h"
#include "models/llama_config.h"

namespace mobius {

struct CheckpointOptions {
  std::uint64_t seed = 1;
  DType dtype = DType::bf16;
  std::int32_t shards = 0;   ///< 0: as many as Hugging Face would write
  std::int32_t threads = 0;  ///< 0: one for each core
};

/// Writes a checkpoint with random weights: safetensors, config.json, generation_config.json and
/// tokenizer.json. The files' bytes follow from `config` and `options` (threads aside) alone. Needs
/// a few MB of memory whatever the size. Files appear under their names when they are whole, and
/// config.json, without which a folder is no checkpoint, is the last. Throws std::runtime_error
/// with one line.
void write_checkpoint(const LlamaConfig& config, const CheckpointOptions& options,
                      const std::filesystem::path& folder);

}  // namespace mobius
