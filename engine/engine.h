#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/cache_events.h"
#include "engine/duration_counts.h"
#include "engine/request.h"
#include "engine/status.h"
#include "engine/stream.h"
#include "engine/tokenizer/tokenizer.h"
#include "models/runner.h"

namespace mobius {

struct EngineOptions {
  std::int32_t max_running = 64;    ///< sequences that share steps; the runner may allow fewer
  std::int32_t max_waiting = 1024;  ///< requests beside those, 0 or more; others are refused
  /// Prompt tokens of those, refused likewise; 0: any number. A request that nobody waits before
  /// is taken whatever its length.
  std::int64_t max_waiting_tokens = 0;
  std::int32_t step_tokens = 512;  ///< rows of one step: decodes first, prefill chunks fill up
  /// Time between the tokens of running answers, which chunks of prompts beside them are sized for
  /// (chunk_sizer.h); 0: whatever steps of step_tokens take.
  std::chrono::nanoseconds itl_target{};
  bool prefix_cache = true;              ///< reuse the pages of a common beginning (prefix_cache.h)
  std::vector<std::int32_t> end_tokens;  ///< the model's own (eos)
  /// Gets the prefix cache's changes after each step that has any, on the engine's thread, which it
  /// must not hold up. Empty: nobody wants them, and none are noted.
  CacheEventSink on_cache_events;
  /// Called at most once, on the engine's thread, when the model fails, with what it threw;
  /// `healthy` is false by then and requests are refused. For logs and to wake somebody up: it must
  /// not call the engine's destructor. May be empty.
  std::function<void(const std::string& what)> on_failure;
};

/// A snapshot for health and metrics.
struct EngineStats {
  std::int32_t running = 0;
  std::int32_t waiting = 0;
  std::int32_t pages_total = 0;
  std::int32_t pages_used = 0;      ///< by unfinished requests
  std::int32_t pages_cached = 0;    ///< beside those, kept for reuse until somebody needs them
  std::int64_t waiting_tokens = 0;  ///< of the requests that wait
  std::int64_t prompt_tokens = 0;   ///< computed since the start
  std::int64_t cached_tokens = 0;   ///< of prompts, not computed but found in the prefix cache
  std::int64_t generated_tokens = 0;
  std::int64_t requests_finished = 0;  ///< all reasons
  std::int64_t preemptions = 0;
  DurationCounts token_gaps;            ///< between a sequence's tokens (ITL), since the start
  double prompt_tokens_per_second = 0;  ///< computed lately, while there were any; 0: not yet known
  bool healthy = true;  ///< false once the engine thread met an error that it cannot mend
};

/// Runs requests on a model. Owns one thread, which alone touches the runner, the scheduler and the
/// KV pages. All public functions are thread-safe and never wait for computation.
class Engine {
 public:
  /// `tokenizer` turns tokens into text; it must be usable from several threads. Throws
  /// std::invalid_argument, one line, on options or a runner that cannot work.
  Engine(const EngineOptions& options, std::unique_ptr<Runner> runner,
         std::shared_ptr<const Tokenizer> tokenizer);
  /// `stop`, and joins the thread.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Queues a request. Refuses with invalid_argument (empty or over-long prompt, a policy that the
  /// pages cannot carry, ids outside the vocabulary, …), resource_exhausted (queue full; says after
  /// how long to try again) or unavailable (stopping, or unhealthy). Validates on the caller's
  /// thread: O(prompt). Where memory runs out later, the stream ends with resource_exhausted.
  StatusOr<std::shared_ptr<Stream>> submit(GenerationRequest request);

  /// Accepts no more requests; what runs goes on.
  void drain();

  /// Accepts no more requests and ends the others with `unavailable`, after the step that runs.
  /// Returns at once.
  void stop();

  EngineStats stats() const;
  const RunnerInfo& model() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mobius
