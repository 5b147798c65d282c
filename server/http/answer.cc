#include "server/http/answer.h"

#include <algorithm>
#include <chrono>

namespace mobius {

std::string sse_event(std::string_view json) {
  std::string event = "data: ";
  event.append(json).append("\n\n");
  return event;
}

AnswerTotal::AnswerTotal(const AnswerHead& head)
    : n_(head.n), missing_(head.seeds.size()), cached_(head.seeds.size() / head.n) {}

void AnswerTotal::add(std::size_t choice, const Finish& finish) {
  std::optional<std::int32_t>& cached = cached_[choice / n_];
  if (!cached.has_value()) {
    usage.prompt_tokens += finish.usage.prompt_tokens;
    usage.cached_tokens += finish.usage.cached_tokens;
    cached = finish.usage.cached_tokens;
  } else if (finish.usage.cached_tokens < *cached) {
    usage.cached_tokens += finish.usage.cached_tokens - *cached;
    cached = finish.usage.cached_tokens;
  }
  usage.completion_tokens += finish.usage.completion_tokens;
  const auto earlier = [&](std::chrono::nanoseconds& time, std::chrono::nanoseconds other) {
    time = time.count() == 0 ? other : std::min(time, other);
  };
  earlier(timing.queued, finish.timing.queued);
  earlier(timing.first_token, finish.timing.first_token);
  timing.total = std::max(timing.total, finish.timing.total);
  prefill_reads += finish.prefill_reads;
  decode_reads += finish.decode_reads;
  routing = finish.routing;
  --missing_;
}

AnswerDelta ChoiceText::push(std::int32_t token, std::string_view text) {
  if (parser.has_value()) return parser->push(token, text);
  return {.content = std::string(text), .calls = {}};
}

AnswerDelta ChoiceText::finish(std::string_view text) {
  if (parser.has_value()) return parser->finish(text);
  return {.content = std::string(text), .calls = {}};
}

std::vector<ChoiceText> begin_choices(const AnswerHead& head) {
  std::vector<ChoiceText> choices(head.seeds.size());
  if (head.tool_names.empty()) return choices;
  for (ChoiceText& choice : choices) {
    choice.parser.emplace(head.tool_names, head.parallel_tool_calls, *head.tokenizer);
  }
  return choices;
}

}  // namespace mobius
