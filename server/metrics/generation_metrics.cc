#include "server/metrics/generation_metrics.h"

namespace mobius {
namespace {

double seconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

std::string_view outcome_of(const Finish& finish) {
  switch (finish.reason) {
    case FinishReason::stop: return "stop";
    case FinishReason::length: return "length";
    case FinishReason::error: return name_of(finish.status.code());
  }
  return "unknown";
}

void GenerationMetrics::finished(const Finish& finish) {
  switch (finish.reason) {
    case FinishReason::stop: ++stopped; break;
    case FinishReason::length: ++reached_length; break;
    case FinishReason::error: ++failed[static_cast<std::size_t>(finish.status.code())]; break;
  }
  blocks_read[0] += finish.prefill_reads.read;
  blocks_total[0] += finish.prefill_reads.total;
  blocks_read[1] += finish.decode_reads.read;
  blocks_total[1] += finish.decode_reads.total;
  const Usage& usage = finish.usage;
  const Timing& timing = finish.timing;
  const bool failed_early = finish.reason == FinishReason::error && usage.completion_tokens == 0;
  // The prompt may not have been computed.
  if (failed_early) return;
  prompt_tokens += usage.prompt_tokens;
  cached_tokens += usage.cached_tokens;
  queue.observe(seconds(timing.queued));
  if (finish.reason != FinishReason::error) generation.observe(seconds(timing.total));
  // Where no answer was asked for there was no first token to time.
  if (usage.completion_tokens == 0) return;
  time_to_first_token.observe(seconds(timing.first_token));
  prefill.observe(seconds(timing.first_token - timing.queued));
  decode.observe(seconds(timing.total - timing.first_token));
  if (usage.completion_tokens > 1) {
    time_per_output_token.observe(seconds(timing.total - timing.first_token) /
                                  (usage.completion_tokens - 1));
  }
}

void GenerationMetrics::refused(StatusCode code) {
  ++refusals[static_cast<std::size_t>(code)];
}

}  // namespace mobius
