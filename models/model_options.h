#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>

#include "kernels/tensor.h"

namespace mobius {

/// Which device computes. `any`: the GPU where build and machine have one, else the CPU.
enum class DeviceChoice : std::uint8_t { any, cpu, cuda };

/// What an operator chooses about a model. Checked by `plan_memory`.
struct ModelOptions {
  std::filesystem::path folder;  ///< checkpoint in Hugging Face's layout
  /// Type of weights and activations, bf16 or f32. Empty: on a GPU bf16; else the stored type, and
  /// f32 for a checkpoint stored as f16 (bf16 would drop three of its mantissa bits).
  std::optional<DType> compute_dtype;
  /// Weights of products are quantised to e4m3 on load, with a scale a row (kernels/fp8.h); the
  /// embedding is not. For backends whose info says so.
  bool fp8_weights = false;
  /// Cached keys and values are quantised to e4m3, with a scale for each token and KV head
  /// (kernels/moba.md); else they have the compute type.
  bool fp8_kv = false;
  std::int32_t page_tokens = 128;
  /// Bytes of KV cache. 0: room for two sequences of the longest context, at most 80 % of the
  /// memory that weights and workspace leave.
  std::size_t kv_cache_bytes = 0;
  /// Tokens that one sequence may have. Asking for it makes it a promise: it is refused if the KV
  /// cache cannot hold one such sequence. 0: as many as model and KV cache allow.
  std::int32_t max_context = 0;
  std::int32_t step_tokens = 512;  ///< rows of the largest step
  std::int32_t max_sequences = 64;
  DeviceChoice device = DeviceChoice::cpu;
  std::int32_t cuda_device = 0;  ///< which GPU, where there are several
  std::int32_t threads = 0;      ///< of the CPU; 0: every core this process may run on
  /// Blocks of this many tokens get their centroid stored (KvShape); a multiple of page_tokens, or
  /// 0.
  std::int32_t centroid_block = 0;
};

}  // namespace mobius
