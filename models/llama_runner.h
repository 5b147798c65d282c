#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "models/checkpoint.h"
#include "models/llama.h"
#include "models/llama_config.h"
#include "models/memory_plan.h"
#include "models/model_options.h"
#include "models/runner.h"

namespace mobius {

/// Runs a Llama on one backend. Owns the mapped checkpoint, the backend, the weights and the KV
/// pool; all memory is taken in the constructor. One thread at a time.
class LlamaRunner : public Runner {
 public:
  /// `plan` was made for this checkpoint and backend. Throws std::runtime_error with one line.
  LlamaRunner(const LlamaConfig& config, Checkpoint checkpoint, const MemoryPlan& plan,
              std::unique_ptr<Backend> backend, const LoadProgress& progress = {});
  ~LlamaRunner() override;

  const RunnerInfo& info() const override { return info_; }
  /// Throws std::invalid_argument, before anything is computed, if the batch exceeds the limits or
  /// a sampled row is not in it.
  void submit(const StepBatch& batch) override;
  std::span<const SampledToken> wait() override;

  const LlamaConfig& config() const { return config_; }
  const MemoryPlan& plan() const { return plan_; }

  /// Pushes a step through the model and copies the logits of its logit rows to
  /// `logits`[logit_rows.size(), vocab_size]. For tests and tools.
  void forward(const StepView& step, std::span<float> logits);

 private:
  void check(const StepView& step) const;

  LlamaConfig config_;
  MemoryPlan plan_;
  RunnerInfo info_;
  // Destroyed from the bottom up: pool and weights before the backend, the mapping last.
  Checkpoint checkpoint_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Llama> llama_;
  std::unique_ptr<KvPool> kv_;
  std::vector<SampledToken> sampled_;
};

/// What a user may want to hear while a model is loaded. Empty functions are not called.
struct LoadEvents {
  /// Why DeviceChoice::any came down to the CPU.
  std::function<void(const std::string&)> on_fallback;
  LoadProgress on_progress;
};

/// Maps the checkpoint of options.folder, plans memory on the device asked for and loads the model,
/// in this order: a folder, file or option that cannot work throws std::runtime_error with one line
/// before memory is taken.
std::unique_ptr<LlamaRunner> load_llama(const ModelOptions& options, const LoadEvents& events = {});

/// The same up to the plan: reads headers only.
MemoryPlan plan_llama(const ModelOptions& options, const LoadEvents& events = {});

}  // namespace mobius
