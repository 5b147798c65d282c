#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "models/checkpoint.h"
#include "models/llama_config.h"
#include "models/memory_plan.h"

namespace mobius {

/// Sizes that the backend needs to know. `compute` is the type of weights and activations; with
/// `fp8_weights`, weights of products are e4m3 instead.
ModelShape model_shape(const LlamaConfig& config, DType compute, bool fp8_weights = false);

/// Checks that the checkpoint has every tensor of the architecture in the right shape, and says how
/// much memory loading them as in `model_shape` takes. Throws std::runtime_error that names file
/// and tensor.
WeightMemory check_weights(const LlamaConfig& config, const Checkpoint& checkpoint, DType compute,
                           bool fp8_weights = false);

/// Bytes of the buffers that hold activations of one step.
std::size_t activation_bytes(const ModelShape& model, const StepLimits& limits);

/// Told while weights are loaded: bytes so far, of so many, as they lie in memory.
using LoadProgress = std::function<void(std::size_t done, std::size_t total)>;

/// The Llama architecture (Touvron et al., 2023; Grattafiori et al., "The Llama 3 Herd of Models",
/// 2024) with Hugging Face's names for weights, written in the operations of one backend. The
/// residual stream is f32; what enters a matrix product has the weights' type.
class Llama {
 public:
  /// Loads the weights and takes the activation buffers. `checkpoint` and `backend` must outlive
  /// this. Throws std::runtime_error with one line.
  Llama(const LlamaConfig& config, const Checkpoint& checkpoint, const MemoryPlan& plan,
        Backend& backend, const LoadProgress& progress = {});

  /// Pushes the rows of `step` through all layers, appending their keys and values to `kv`, and
  /// returns the logits [n, vocab_size] (f32) of the step's n <= max_logit_rows() logit rows, in
  /// order; an empty tensor when there are none. Valid until the next call. Leaves the backend's
  /// step open: operations on the logits may follow, then the backend's `wait` must.
  Tensor forward(const StepView& step, KvPool& kv);

  /// Rows of one step whose logits can be computed: as many as there are sequences.
  std::int32_t max_logit_rows() const { return max_logit_rows_; }

 private:
  struct Layer {
    Weight attention_norm;  // [1, H]
    Weight qkv;             // [(Q + 2G) * D, H]
    Weight output;          // [H, Q * D]
    Weight mlp_norm;        // [1, H]
    Weight gate_up;         // [2F, H]
    Weight down;            // [H, F]
  };

  LlamaConfig config_;
  ModelShape shape_;
  Backend& backend_;
  std::int32_t max_rows_ = 0;
  std::int32_t max_logit_rows_ = 0;
  std::vector<float> frequencies_;  // what inverse_frequencies_ was made from, maybe in place
  Weight inverse_frequencies_;      // [1, D / 2] f32

  Weight embedding_;  // [V, H]
  std::vector<Layer> layers_;
  Weight final_norm_;  // [1, H]
  Weight lm_head_;     // [V, H]; where tied the embedding, which is never fp8

  // R rows of the largest step, S sampled rows.
  Buffer residual_;        // [R, H] f32
  Buffer normed_;          // [R, H] activation type; later the MLP's [R, F]
  Buffer projected_;       // [R, (Q + 2G) * D] f32; later [R, 2F]
  Buffer query_;           // [R, Q * D] KV type
  Buffer attended_;        // [R, Q * D] KV type
  Buffer sampled_;         // [S, H] f32
  Buffer sampled_normed_;  // [S, H] activation type
  Buffer logits_;          // [S, V] f32
};

}  // namespace mobius
