#include "engine/step_loop.h"

#include <algorithm>
#include <new>
#include <random>
#include <stdexcept>
#include <utility>

namespace mobius {
namespace {

void require_at_least(std::int32_t least, const char* name, std::int32_t value) {
  if (value < least) {
    throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) +
                                ", must be at least " + std::to_string(least));
  }
}

void require_positive(const char* name, std::int32_t value) {
  require_at_least(1, name, value);
}

SchedulerLimits scheduler_limits(const EngineOptions& options, const RunnerInfo& model) {
  require_positive("max_running", options.max_running);
  require_at_least(0, "max_waiting", options.max_waiting);
  require_positive("step_tokens", options.step_tokens);
  if (options.max_waiting_tokens < 0) {
    throw std::invalid_argument("max_waiting_tokens is " +
                                std::to_string(options.max_waiting_tokens) +
                                ", must be at least 0");
  }
  if (options.itl_target.count() < 0) {
    throw std::invalid_argument("itl_target is negative, must be at least 0");
  }
  require_positive("the model's max_rows", model.limits.max_rows);
  require_positive("the model's max_sequences", model.limits.max_sequences);
  require_positive("the model's page_tokens", model.page_tokens);
  require_positive("the model's num_pages", model.num_pages);
  require_positive("the model's vocab_size", model.vocab_size);
  SchedulerLimits limits;
  limits.step_rows = std::min(options.step_tokens, model.limits.max_rows);
  // Every running sequence must find a row in each step.
  limits.max_running =
      std::min({options.max_running, model.limits.max_sequences, limits.step_rows});
  limits.page_tokens = model.page_tokens;
  limits.num_pages = model.num_pages;
  limits.logit_rows = std::min(model.limits.max_sequences, model.limits.max_rows);
  return limits;
}

// Hashes decide what is looked at, never what is found: no answer depends on it.
std::uint64_t random_key() {
  std::random_device device;
  return (std::uint64_t{device()} << 32U) | device();
}

SequenceSpec spec_of(SequenceId id, const Sequence& sequence) {
  const GenerationRequest& request = sequence.request();
  const AttentionSettings& attention = request.attention;
  SequenceSpec spec;
  spec.id = id;
  spec.prompt_tokens = static_cast<std::int32_t>(sequence.prompt().size());
  spec.priority = request.priority;
  spec.client = request.client;
  spec.prompt_rows = RowAttention::of(attention.prefill, attention.full_attention_last_layers);
  spec.scores_prompt = request.prompt_logprobs >= 0;
  spec.generated_rows = RowAttention::of(attention.decode, attention.full_attention_last_layers);
  return spec;
}

}  // namespace

StepLoop::StepLoop(const EngineOptions& options, Runner& runner, const Tokenizer& tokenizer,
                   Clock clock)
    : end_tokens_(options.end_tokens),
      runner_(&runner),
      tokenizer_(&tokenizer),
      clock_(std::move(clock)),
      on_cache_events_(options.on_cache_events),
      max_context_(0),
      limits_(scheduler_limits(options, runner.info())),
      scheduler_(limits_, tokens_of(options.prefix_cache), random_key()),
      chunk_sizer_(options.itl_target, limits_.step_rows),
      builder_(limits_.step_rows, limits_.max_running, limits_.logit_rows,
               runner.info().vocab_size) {
  if (on_cache_events_) scheduler_.record_cache_events();
  max_context_ = static_cast<std::int32_t>(
      std::min<std::int64_t>(runner.info().limits.max_context, scheduler_.capacity()));
  if (max_context_ < 2) {
    throw std::invalid_argument("the context is " + std::to_string(max_context_) +
                                " tokens, must be at least 2");
  }
}

Scheduler::TokensOf StepLoop::tokens_of(bool prefix_cache) const {
  if (!prefix_cache) return {};
  return [this](SequenceId id) { return sequences_.at(id).tokens(); };
}

void StepLoop::add(Submission&& submission) {
  const SequenceId id = next_id_++;
  const auto prompt_tokens = static_cast<std::int32_t>(submission.request.prompt.size());
  // Made first: with it, a request can be refused whatever becomes of the submission.
  Ended refused{submission.request.id, submission.stream, {}};
  try {
    sequences_.try_emplace(id, std::move(submission), *tokenizer_, runner_->info(), max_context_);
    scheduler_.add(spec_of(id, sequences_.at(id)));
  } catch (const std::bad_alloc&) {
    sequences_.erase(id);
    refused.finish.reason = FinishReason::error;
    refused.finish.status = {StatusCode::resource_exhausted,
                             "the server has no memory for this request"};
    refused.finish.usage.prompt_tokens = prompt_tokens;
    ended_.push_back(std::move(refused));
    ++counters_.requests_finished;
  }
}

void StepLoop::step() {
  end_interrupted(clock_());
  const auto plan = scheduler_.plan(chunk_sizer_.rows());
  if (plan.empty()) {
    hand_out();
    return;
  }
  const TimePoint begin = clock_();
  const auto sampled = run(plan);
  const TimePoint now = clock_();
  measure(plan, now - begin);

  computed_.assign(plan.begin(), plan.end());
  scheduler_.finish_step();
  leaving_.clear();
  auto token = sampled.begin();
  for (const PlannedSlice& slice : computed_) {
    Sequence& sequence = sequences_.at(slice.sequence);
    if (slice.prompt) {
      const std::int32_t scored = sequence.scoring_rows(slice.first, slice.count).count;
      sequence.on_scored({token, token + scored});
      token += scored;
    }
    counters_.cached_tokens += sequence.on_computed(slice.first, slice.count, now);
    if (slice.prompt) counters_.prompt_tokens += slice.count;
    if (!slice.samples) continue;
    if (sequence.generates_nothing()) {
      ++token;
      leaving_.push_back(slice.sequence);
      continue;
    }
    ++counters_.generated_tokens;
    if (const auto gap = sequence.since_last_token(now)) counters_.token_gaps.observe(*gap);
    if (sequence.accept(*token++, end_tokens_, now)) leaving_.push_back(slice.sequence);
    holding_.push_back(slice.sequence);
  }
  if (!runner_->info().asynchronous) hand_out();
  for (const SequenceId id : leaving_) end(id, {}, now);
  pass_on_cache_events();
}

void StepLoop::hand_out() {
  for (const SequenceId id : holding_) {
    const auto found = sequences_.find(id);
    if (found != sequences_.end()) found->second.hand_out();  // else it did when it ended
  }
  holding_.clear();
}

void StepLoop::pass_on_cache_events() {
  if (!on_cache_events_) return;
  std::vector<CacheEvent> events = scheduler_.take_cache_events();
  if (!events.empty()) on_cache_events_(std::move(events));
}

void StepLoop::measure(std::span<const PlannedSlice> plan, std::chrono::nanoseconds time) {
  std::int32_t prefill_rows = 0;
  for (const PlannedSlice& slice : plan) {
    if (slice.prompt || !slice.samples || slice.count > 1) prefill_rows += slice.count;
  }
  if (prefill_rows == 0) return;
  chunk_sizer_.observe(prefill_rows, time);
  const double seconds = std::max(std::chrono::duration<double>(time).count(), 1e-9);
  double& speed = counters_.prompt_tokens_per_second;
  const double now = prefill_rows / seconds;
  speed = speed == 0 ? now : speed + (now - speed) / 8;
}

std::span<const SampledToken> StepLoop::run(std::span<const PlannedSlice> plan) {
  builder_.clear();
  const TimePoint now = clock_();
  for (const PlannedSlice& slice : plan) {
    Sequence& sequence = sequences_.at(slice.sequence);
    sequence.on_step(now);
    if (slice.samples) sequence.update_mask(end_tokens_);
    builder_.add(slice, sequence);
  }
  const StepBatch batch = builder_.batch();
  runner_->submit(batch);
  hand_out();  // wakes consumers while the device computes
  const auto sampled = runner_->wait();
  if (sampled.size() != batch.samples.size()) {
    throw std::runtime_error("the model returned " + std::to_string(sampled.size()) +
                             " tokens for " + std::to_string(batch.samples.size()) + " rows");
  }
  for (const SampledToken& token : sampled) {
    if (token.token < 0 || token.token >= runner_->info().vocab_size) {
      throw std::runtime_error("the model returned token " + std::to_string(token.token) +
                               ", which is not in its vocabulary");
    }
  }
  return sampled;
}

void StepLoop::end_interrupted(TimePoint now) {
  leaving_.clear();
  for (const auto& [id, sequence] : sequences_) {
    if (!sequence.interruption(now).ok()) leaving_.push_back(id);
  }
  for (const SequenceId id : leaving_) end(id, sequences_.at(id).interruption(now), now);
}

void StepLoop::end_all(const Status& error) {
  const TimePoint now = clock_();
  while (!sequences_.empty()) end(sequences_.begin()->first, error, now);
}

void StepLoop::end(SequenceId id, const Status& error, TimePoint now) {
  const auto found = sequences_.find(id);
  Sequence& sequence = found->second;
  ended_.push_back({sequence.request().id, sequence.shared_stream(), sequence.finish(error, now)});
  scheduler_.remove(id);
  sequences_.erase(found);
  ++counters_.requests_finished;
}

std::vector<StepLoop::Ended> StepLoop::take_ended() {
  return std::exchange(ended_, {});
}

EngineStats StepLoop::stats() const {
  EngineStats stats = counters_;
  stats.running = scheduler_.running();
  stats.waiting = scheduler_.waiting();
  stats.pages_total = scheduler_.pages().total();
  stats.pages_used = scheduler_.pages().used();
  stats.pages_cached = scheduler_.pages().idle();
  stats.waiting_tokens = scheduler_.waiting_tokens();
  stats.preemptions = scheduler_.preemptions();
  return stats;
}

}  // namespace mobius
