#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/backend.h"
#include "models/llama_config.h"
#include "models/model_options.h"

namespace mobius {

/// Memory of a checkpoint's weights once loaded.
struct WeightMemory {
  std::size_t mapped_bytes = 0;  ///< used in place from the mapped files
  std::size_t copied_bytes = 0;  ///< converted to another type, or copied to a device, on load
};

/// Who gets how much memory, settled before anything is loaded.
struct MemoryPlan {
  ModelShape model;
  KvShape kv;
  StepLimits limits;             ///< max_context: the longest sequence that model and cache allow
  std::string device;            ///< the backend's name
  std::size_t memory_bytes = 0;  ///< what the backend may use
  WeightMemory weights;
  std::size_t workspace_bytes = 0;  ///< activations of the largest step and the backend's scratch
  std::size_t kv_bytes = 0;
  std::int32_t model_context = 0;  ///< max_position_embeddings

  std::size_t total_bytes() const {
    return weights.mapped_bytes + weights.copied_bytes + workspace_bytes + kv_bytes;
  }
};

/// Type that weights and activations get: the one asked for, else from how they are stored.
DType compute_dtype(const ModelOptions& options, DType stored);

/// Divides the backend's memory: weights, workspace for the largest step, KV pages from what is
/// left. Allocates nothing. Throws std::runtime_error with one line that names the option (by its
/// key in the server's configuration), its value and the limit when the options cannot work.
MemoryPlan plan_memory(const ModelOptions& options, const LlamaConfig& config, DType stored,
                       const WeightMemory& weights, const Backend& backend);

/// The plan as a table for people, one line per item, ending in a newline.
std::string render(const MemoryPlan& plan);

}  // namespace mobius
