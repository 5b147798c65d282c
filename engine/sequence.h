#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/grammar/grammar.h"
#include "engine/request.h"
#include "engine/routing.h"
#include "engine/stop_matcher.h"
#include "engine/stream.h"
#include "engine/tokenizer/detokenizer.h"
#include "models/runner.h"

namespace mobius {

using TimePoint = std::chrono::steady_clock::time_point;

/// What a request becomes when it enters the engine.
struct Submission {
  GenerationRequest request;
  std::shared_ptr<Stream> stream;
  TimePoint arrival;
};

/// The state of one unfinished request: its tokens, its text and its times. Where its keys and
/// values are is the scheduler's business. Used by the engine thread alone.
class Sequence {
 public:
  /// `tokenizer` and `model` must outlive this. `max_context`: tokens that the sequence can have.
  Sequence(Submission submission, const Tokenizer& tokenizer, const RunnerInfo& model,
           std::int32_t max_context);

  const GenerationRequest& request() const { return request_; }
  Stream& stream() const { return *stream_; }
  std::shared_ptr<Stream> shared_stream() const { return stream_; }

  /// Prompt and generated tokens.
  std::span<const std::int32_t> tokens() const { return tokens_; }
  std::span<const std::int32_t> prompt() const { return tokens().first(prompt_tokens_); }
  std::span<const std::int32_t> generated() const { return tokens().subspan(prompt_tokens_); }

  /// Why it must end at `now` whatever it computed: cancelled or past its deadline. OK: it goes on.
  Status interruption(TimePoint now) const;

  /// A step with rows of this sequence is about to run.
  void on_step(TimePoint now);

  /// Rows [first, first + count) were computed until `now`; the tokens before are in the cache too.
  /// Reports progress where the prompt got further. Returns the prompt tokens that turned out to
  /// come from the prefix cache: they are in the cache and were never computed here.
  std::int32_t on_computed(std::int32_t first, std::int32_t count, TimePoint now);

  /// Consecutive rows, by position.
  struct Rows {
    std::int32_t first = 0;
    std::int32_t count = 0;
  };
  /// Of `count` rows from `first` on, those whose logits the request wants for its prompt: each
  /// gives the log-probability of the token behind it.
  Rows scoring_rows(std::int32_t first, std::int32_t count) const;
  /// How the token behind such a row is drawn: it is the only one that may be.
  const SamplingParams& scoring() const { return scoring_; }
  /// Sends what scoring_rows gave for a slice of the prompt, before its on_computed. Throws
  /// std::runtime_error for tokens that are not the prompt's.
  void on_scored(std::span<const SampledToken> tokens);

  /// Finds the tokens that may come next. To be called before a step that samples this sequence.
  void update_mask(std::span<const std::int32_t> end_tokens);
  /// What update_mask found, as SampleRow::allowed has it; empty where all may come.
  std::span<const std::uint32_t> allowed() const { return mask_; }

  /// Where a step that samples this sequence should tell which blocks were attended, for its
  /// SequenceSlice; to be called before such a step. Empty where nobody asked.
  std::span<std::int32_t> ask_routing();

  /// The prompt alone is wanted: what is drawn at its end is no token of an answer.
  bool generates_nothing() const { return max_tokens_ == 0; }

  /// Appends a generated token; its event is held. True if it was the last one; then `finish` says
  /// why. Throws std::runtime_error for one that `allowed` excludes.
  bool accept(SampledToken token, std::span<const std::int32_t> end_tokens, TimePoint now);
  /// Sends the event that is held, if one is. The next `accept` and `finish` do so, too.
  void hand_out();
  /// From the last generated token to `now`; none before the first.
  std::optional<std::chrono::nanoseconds> since_last_token(TimePoint now) const;

  /// The last event. `error` OK: the request came to the end that `accept` saw.
  Finish finish(const Status& error, TimePoint now);

 private:
  BlockReads count_reads(const AttentionPolicy& policy, std::int64_t first,
                         std::int64_t count) const;

  GenerationRequest request_;  // without the prompt, which is in tokens_
  std::shared_ptr<Stream> stream_;
  std::optional<TokenDelta> held_;
  const RunnerInfo* model_;
  const Tokenizer* tokenizer_;
  std::vector<std::int32_t> tokens_;
  std::size_t prompt_tokens_;
  std::size_t max_tokens_;  // that may be generated; the end of the context included
  SamplingParams scoring_;
  std::size_t scored_ = 0;                // prompt tokens that were sent; the first has no score
  std::int32_t computed_ = 0;             // most tokens that were ever in the cache
  std::int32_t cached_ = 0;               // of the prompt
  BlockReads cached_reads_;               // what computing them would have read
  std::chrono::duration<double> pace_{};  // for a row, lately
  TimePoint last_rows_;                   // when rows were computed last
  Detokenizer detokenizer_;
  StopMatcher stops_;
  std::optional<GrammarMatcher> matcher_;  // where the request has a grammar
  std::vector<std::uint32_t> mask_;
  std::optional<RoutingCounter> routing_;  // where it was asked for
  FinishReason reason_ = FinishReason::length;
  TimePoint arrival_;
  std::optional<TimePoint> started_;
  std::optional<TimePoint> first_token_;
  TimePoint last_token_;  // where there is a first one
};

}  // namespace mobius
