#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/chunk_sizer.h"
#include "engine/engine.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "engine/step_builder.h"

namespace mobius {

/// What the engine thread does, without the thread: takes submissions, runs steps, ends requests.
/// The clock is a parameter, so that tests can say what time it is. Not thread-safe.
class StepLoop {
 public:
  using Clock = std::function<TimePoint()>;

  /// A request's last event, for its stream.
  struct Ended {
    std::string id;
    std::shared_ptr<Stream> stream;
    Finish finish;
  };

  /// `runner` and `tokenizer` must outlive this. Throws std::invalid_argument on options or a
  /// runner that cannot work.
  StepLoop(const EngineOptions& options, Runner& runner, const Tokenizer& tokenizer, Clock clock);

  /// Sequences that share steps: the smallest of the options' and the runner's limits.
  std::int32_t max_running() const { return limits_.max_running; }
  /// Tokens that a sequence can have, prompt and generated ones together.
  std::int32_t max_context() const { return max_context_; }

  /// Takes a request that passed validate() with this max_context(). One that memory does not
  /// suffice for ends at once, with resource_exhausted.
  void add(Submission&& submission);

  bool idle() const { return sequences_.empty(); }

  /// Ends what was cancelled or is late, then runs one step. Passes on what the runner throws;
  /// then only `end_all` may follow.
  void step();

  /// Pushes the tokens that the last step drew and still holds. Where the runner computes while
  /// others work, `step` leaves that to the next one, once it is under way: to wake as many
  /// consumers as there are sequences takes a while, which the device would wait for.
  void hand_out();

  /// Ends every request with an error.
  void end_all(const Status& error);

  /// Requests that ended since the last call. Their Finish is not in their streams yet: whoever
  /// takes it pushes it, last.
  std::vector<Ended> take_ended();

  const Scheduler& scheduler() const { return scheduler_; }
  /// Everything but `healthy`.
  EngineStats stats() const;

 private:
  void end(SequenceId id, const Status& error, TimePoint now);
  void end_interrupted(TimePoint now);
  void pass_on_cache_events();
  Scheduler::TokensOf tokens_of(bool prefix_cache) const;
  void measure(std::span<const PlannedSlice> plan, std::chrono::nanoseconds time);
  std::span<const SampledToken> run(std::span<const PlannedSlice> plan);

  std::vector<std::int32_t> end_tokens_;
  Runner* runner_;
  const Tokenizer* tokenizer_;
  Clock clock_;
  CacheEventSink on_cache_events_;
  std::int32_t max_context_;
  SchedulerLimits limits_;
  std::map<SequenceId, Sequence> sequences_;  // unfinished ones; the scheduler reads their tokens
  Scheduler scheduler_;
  ChunkSizer chunk_sizer_;
  StepBuilder builder_;
  SequenceId next_id_ = 0;
  std::vector<SequenceId> leaving_;     // scratch of step
  std::vector<SequenceId> holding_;     // those with tokens to hand out
  std::vector<PlannedSlice> computed_;  // scratch of step: the plan, which finish_step forgets
  std::vector<Ended> ended_;
  EngineStats counters_;
};

}  // namespace mobius
