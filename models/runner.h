#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/backend.h"
#include "kernels/sampling.h"

namespace mobius {

/// One step for a runner: rows to push through the model, and how to sample a token from each of
/// its logit rows. Everything is borrowed until `wait` returns.
struct StepBatch {
  StepView view;
  std::span<const SampleRow> samples;  ///< [view.logit_rows.size()]
};

/// What the engine needs to know of a model.
struct RunnerInfo {
  std::string device;  ///< for logs
  std::int32_t num_layers = 0;
  std::int32_t num_heads = 0;
  std::int32_t num_kv_heads = 0;
  std::int32_t vocab_size = 0;
  std::int32_t page_tokens = 0;
  std::int32_t num_pages = 0;
  bool tells_blocks = false;  ///< SequenceSlice::attended may be asked for
  bool asynchronous = false;  ///< submit returns before the step is computed
  StepLimits limits;          ///< max_context: the longest sequence that model and memory allow
};

/// The seam between the engine and the models: pages and tokens in, sampled tokens out. One thread
/// (the engine's) calls it; `submit` and `wait` alternate. A runner owns the KV pool whose page ids
/// the engine hands out.
///
/// A thrown exception means that the device is lost: the engine fails every request and stops.
class Runner {
 public:
  virtual ~Runner() = default;
  virtual const RunnerInfo& info() const = 0;

  /// Starts the step; may return before it is done.
  virtual void submit(const StepBatch& batch) = 0;

  /// Waits for the submitted step and returns its tokens, one for each of `samples`, in order,
  /// none where there are none: it is called after every submit.
  /// Valid until the next submit.
  virtual std::span<const SampledToken> wait() = 0;
};

}  // namespace mobius
