#include "server/grpc/generation_reactor.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "server/grpc/grpc_convert.h"
#include "server/log.h"

namespace mobius {

std::shared_ptr<GenerationReactor> GenerationReactor::make(grpc::CallbackServerContext& context,
                                                           CallContext& shared,
                                                           const char* method) {
  auto reactor = std::make_shared<GenerationReactor>(context, shared, method);
  reactor->self_ = reactor;
  shared.add(reactor);
  return reactor;
}

template <typename Input, typename Message, typename Submit>
void GenerationReactor::start(const Message& request, std::string prompt_name,
                              const Submit& submit) {
  if (const Status status = access_.admit(shared_.keys, /*counted=*/true); !status.ok()) {
    shared_.service.refused(status.code());
    finish(status);
    return;
  }
  StatusOr<Input> input = to_input(request);
  if (!input.ok()) {
    finish(input.status());
    return;
  }
  prompt_name_ = std::move(prompt_name);
  GenerationOptions& options = input.value().options;
  with_logprobs_ = options.top_logprobs.has_value();
  set_deadline(options);
  options.caller = access_.caller();
  submit(std::move(input).value(), [self = shared_from_this()](StatusOr<Generation> result) {
    self->started(std::move(result));
  });
}

std::shared_ptr<GenerationReactor> GenerationReactor::start_chat(
    grpc::CallbackServerContext& context, CallContext& shared, const v1::ChatRequest& request) {
  auto reactor = make(context, shared, "Chat");
  reactor->start<ChatInput>(request, "messages", [&](ChatInput&& input, auto started) {
    shared.service.generate(std::move(input), reactor->abandoned_, std::move(started));
  });
  return reactor;
}

std::shared_ptr<GenerationReactor> GenerationReactor::start_generate(
    grpc::CallbackServerContext& context, CallContext& shared, const v1::GenerateRequest& request) {
  auto reactor = make(context, shared, "Generate");
  const char* const prompt = request.has_tokens() ? "tokens.ids" : "text";
  reactor->start<CompletionInput>(request, prompt, [&](CompletionInput&& input, auto started) {
    shared.service.generate(std::move(input), reactor->abandoned_, std::move(started));
  });
  return reactor;
}

void GenerationReactor::set_deadline(GenerationOptions& options) const {
  using std::chrono::steady_clock;
  using std::chrono::system_clock;
  const system_clock::time_point deadline = context_.deadline();
  // Calls without a deadline have one that is centuries away; the sum would overflow.
  const auto left = deadline - system_clock::now();
  if (left < std::chrono::hours(24 * 365)) {
    options.deadline =
        steady_clock::now() + std::chrono::duration_cast<steady_clock::duration>(left);
  }
}

void GenerationReactor::started(StatusOr<Generation> result) {
  if (!result.ok()) {
    finish(result.status());
    return;
  }
  std::shared_ptr<Stream> stream = result.value().stream();
  {
    const std::lock_guard lock(mutex_);
    generation_ = std::move(result).value();
    if (!generation_.tool_names.empty()) {
      calls_.emplace(generation_.tool_names, generation_.parallel_tool_calls,
                     shared_.service.tokenizer());
    }
  }
  // Set before the flag is read, and OnCancel does it the other way round: one of us sees it.
  if (abandoned_->load()) stream->cancel();
  // The stream must not own us, who own it: OnDone ends it all the same.
  stream->on_events([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->schedule();
  });
}

void GenerationReactor::schedule() {
  shared_.pump.post([self = shared_from_this()] { self->pump(); });
}

/// Sends the next event, if no other is being sent, or the end. `sending_` and `finished_` guard
/// `message_`, so that gRPC is called without the lock. Once a generation has begun, only this ends
/// the call, with no message under way: what else runs on the pump's thread can use the call.
void GenerationReactor::pump() {
  std::optional<Status> end;
  {
    const std::lock_guard lock(mutex_);
    if (sending_ || finished_ || generation_.stream() == nullptr) return;
    if (!result_.has_value()) {
      if (!next_message()) return;
    }
    // A failure has no last message.
    if (!sending_) end = result_;
  }
  if (end.has_value()) {
    finish(*end);
  } else {
    StartWrite(&message_);
  }
}

/// Under the lock. Makes the next event `message_` or `result_`, or both; false if there is none.
bool GenerationReactor::next_message() {
  // Nobody reads a cancelled call: only its end matters. It may be in the stream already, which
  // tells of new events only when it has none: all must be taken before we sleep.
  const bool abandoned = abandoned_->load();
  if (events_.empty() || abandoned) {
    std::vector<Event> taken = generation_.stream()->take();
    std::move(taken.begin(), taken.end(), std::back_inserter(events_));
  }
  while (abandoned && !events_.empty() &&
         !std::holds_alternative<mobius::Finish>(events_.front())) {
    events_.pop_front();
  }
  if (events_.empty()) return false;
  const Event event = std::move(events_.front());
  events_.pop_front();
  if (const auto* end = std::get_if<mobius::Finish>(&event)) {
    shared_.service.finished("grpc", generation_, generation_.choices.front(), *end);
    result_ = end->status;
    if (end->reason == FinishReason::error) return true;
  }
  message_ = to_message(generation_.id, event, calls_ ? &*calls_ : nullptr, with_logprobs_,
                        shared_.service.tokenizer());
  sending_ = true;
  sending_since_ = Clock::now();
  return true;
}

bool GenerationReactor::write_is_overdue() const {
  const std::lock_guard lock(mutex_);
  return sending_ && Clock::now() - sending_since_ > shared_.write_timeout;
}

void GenerationReactor::cut_off() {
  if (!write_is_overdue()) return;
  if (!std::exchange(cut_off_, true)) {
    log_event(LogLevel::info, "grpc_client_cut_off",
              {{"id", generation_.id}, {"reason", "it does not read"}});
  }
  // The write fails, and with it the call.
  context_.TryCancel();
}

void GenerationReactor::OnWriteDone(bool ok) {
  std::shared_ptr<Stream> stream;
  {
    const std::lock_guard lock(mutex_);
    sending_ = false;
    stream = generation_.stream();
  }
  if (!ok) {
    // The client is gone: the engine answers the cancellation with a Finish, which ends the call.
    abandoned_->store(true);
    stream->cancel();
  }
  schedule();
}

void GenerationReactor::OnCancel() {
  abandoned_->store(true);
  const std::lock_guard lock(mutex_);
  if (const auto stream = generation_.stream()) stream->cancel();
}

void GenerationReactor::OnDone() {
  std::shared_ptr<Stream> stream;
  {
    const std::lock_guard lock(mutex_);
    stream = generation_.stream();
  }
  if (stream != nullptr) stream->on_events({});
  shared_.remove(this);
  self_.reset();
}

void GenerationReactor::finish(const Status& status) {
  {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    finished_ = true;
  }
  Finish(access_.end(with_grpc_names(status, prompt_name_)));
}

}  // namespace mobius
