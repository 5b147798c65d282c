#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/request.h"
#include "models/runner.h"

namespace mobius {

/// A small model: 256 tokens (the bytes), `num_pages` pages of 4 tokens, steps of up to 64 rows and
/// 16 sequences.
RunnerInfo simulated_model(std::int32_t num_pages = 64);

/// A runner whose pages hold (token, position, attention) and whose next token is a hash of all
/// that, read through the page table, and of the seed. A wrong page table, a lost or misplaced row,
/// a page that somebody else wrote, or a row under the wrong policy gives other tokens. Where a
/// mask excludes the token, it is the next one (cyclically) that is allowed. Throws
/// std::logic_error on a batch that breaks the contract of models/runner.h.
class SimulatedRunner : public Runner {
 public:
  explicit SimulatedRunner(const RunnerInfo& info);

  const RunnerInfo& info() const override { return info_; }
  void submit(const StepBatch& batch) override;
  std::span<const SampledToken> wait() override;

  /// What requests with a seed generate, instead of the hash (which they still must get right to
  /// the end of the script).
  std::map<std::uint64_t, std::vector<std::int32_t>> scripts;
  /// Called in submit, on the thread that runs the step; may block or throw.
  std::function<void(const StepBatch&)> on_step;
  /// Called in wait, on the result before it is returned.
  std::function<void(std::vector<SampledToken>&)> on_result;

 private:
  struct Slot {
    std::int32_t token = -1;
    std::int32_t position = -1;
    AttentionPolicy policy;
    std::int32_t last_layers = 0;
  };

  void check(const StepBatch& batch) const;
  void write(const StepView& view, const SequenceSlice& slice);
  SampledToken sample(const StepView& view, std::int32_t logit_row, const SampleRow& row) const;
  Slot& slot(const SequenceSlice& slice, std::int32_t position);
  const Slot& slot(const SequenceSlice& slice, std::int32_t position) const;

  RunnerInfo info_;
  std::vector<Slot> slots_;  // [num_pages * page_tokens]
  std::vector<SampledToken> result_;
};

/// The first `count` tokens that the simulated model generates for a request which runs alone.
std::vector<std::int32_t> expected_tokens(const GenerationRequest& request, const RunnerInfo& model,
                                          std::size_t count);

/// The log-probabilities that it gives to the prompt's tokens behind the first one.
std::vector<float> expected_prompt_logprobs(const GenerationRequest& request);

}  // namespace mobius
