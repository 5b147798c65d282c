#include "server/generation_log.h"

#include "server/log.h"

namespace mobius {
namespace {

std::string_view outcome_of(const Finish& finish) {
  switch (finish.reason) {
    case FinishReason::stop: return "stop";
    case FinishReason::length: return "length";
    case FinishReason::error: return name_of(finish.status.code());
  }
  return "unknown";
}

}  // namespace

void log_generation(std::string_view protocol, const std::string& id, const Finish& finish) {
  log_event(LogLevel::info, "generation",
            {{"protocol", protocol},
             {"id", id},
             {"outcome", outcome_of(finish)},
             {"prompt_tokens", std::int64_t{finish.usage.prompt_tokens}},
             {"cached_tokens", std::int64_t{finish.usage.cached_tokens}},
             {"completion_tokens", std::int64_t{finish.usage.completion_tokens}},
             {"queued_ms", milliseconds(finish.timing.queued)},
             {"ttft_ms", milliseconds(finish.timing.first_token)},
             {"total_ms", milliseconds(finish.timing.total)}});
}

}  // namespace mobius
