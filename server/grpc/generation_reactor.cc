#include "server/grpc/generation_reactor.h"

#include <vector>

#include "mobius/v1/mobius.pb.h"
#include "server/grpc/grpc_convert.h"
#include "server/log.h"
#include "vllm/vllm_engine.pb.h"

namespace mobius {

template <typename Message>
std::shared_ptr<GenerationReactor<Message>> GenerationReactor<Message>::make(
    grpc::CallbackServerContext& context, CallContext& shared, const char* method,
    std::unique_ptr<EventWriter<Message>> writer) {
  std::shared_ptr<GenerationReactor> reactor(
      new GenerationReactor(context, shared, method, std::move(writer)));
  reactor->self_ = reactor;
  shared.add(reactor);
  return reactor;
}

template <typename Message>
bool GenerationReactor<Message>::admit() {
  const Status status = access_.admit(shared_.keys, /*counted=*/true);
  if (status.ok()) return true;
  shared_.service.refused(status.code());
  finish(status);
  return false;
}

template <typename Message>
void GenerationReactor<Message>::submit(Input input) {
  GenerationOptions& options =
      std::visit([](auto& in) -> GenerationOptions& { return in.options; }, input);
  set_deadline(options);
  options.caller = access_.caller();
  shared_.service.generate(std::move(input), abandoned_,
                           [self = this->shared_from_this()](StatusOr<Generation> result) {
                             self->started(std::move(result));
                           });
}

template <typename Message>
void GenerationReactor<Message>::set_deadline(GenerationOptions& options) const {
  using std::chrono::steady_clock;
  using std::chrono::system_clock;
  const system_clock::time_point deadline = context_.deadline();
  // Calls without a deadline have one that is centuries away; the sum would overflow.
  const auto left = deadline - system_clock::now();
  if (left < std::chrono::hours(24 * 365)) {
    options.timeout = std::chrono::round<std::chrono::milliseconds>(left);
    options.deadline =
        steady_clock::now() + std::chrono::duration_cast<steady_clock::duration>(left);
  }
}

template <typename Message>
void GenerationReactor<Message>::started(StatusOr<Generation> result) {
  if (!result.ok()) {
    finish(result.status());
    return;
  }
  const std::vector<Choice> choices = result.value().choices;
  {
    const std::lock_guard lock(mutex_);
    generation_ = std::move(result).value();
    unfinished_ = choices.size();
    writer_->begin(generation_);
  }
  // Set before the flag is read, and OnCancel does it the other way round: one of us sees it.
  if (abandoned_->load()) cancel_all();
  // The streams must not own us, who own them: OnDone ends it all the same.
  for (const Choice& choice : choices) {
    choice.stream->on_events([weak = this->weak_from_this()] {
      if (const auto self = weak.lock()) self->schedule();
    });
  }
}

template <typename Message>
void GenerationReactor<Message>::schedule() {
  shared_.pump.post([self = this->shared_from_this()] { self->pump(); });
}

/// Sends the next event, if no other is being sent, or the end. `sending_` and `finished_` guard
/// `message_`, so that gRPC is called without the lock. Once a generation has begun, only this ends
/// the call, with no message under way: what else runs on the pump's thread can use the call.
template <typename Message>
void GenerationReactor<Message>::pump() {
  std::optional<Status> end;
  {
    const std::lock_guard lock(mutex_);
    if (sending_ || finished_ || generation_.choices.empty()) return;
    if (!result_.has_value()) {
      if (!next_message()) return;
    }
    // A failure has no last message.
    if (!sending_) end = result_;
  }
  if (end.has_value()) {
    finish(*end);
  } else {
    this->StartWrite(&message_);
  }
}

/// Under the lock. A stream tells of new events only when it has none: all must be taken before we
/// sleep.
template <typename Message>
void GenerationReactor<Message>::take_events() {
  for (std::size_t i = 0; i < generation_.choices.size(); ++i) {
    for (Event& event : generation_.choices[i].stream->take()) {
      events_.emplace_back(i, std::move(event));
    }
  }
}

/// Under the lock. The call ends with its last choice, so that all are logged.
template <typename Message>
void GenerationReactor<Message>::note_end(std::size_t choice, const mobius::Finish& end) {
  shared_.service.finished("grpc", generation_, generation_.choices[choice], end);
  if (end.reason == FinishReason::error && failure_.ok()) {
    failure_ = end.status;
    for (const Choice& other : generation_.choices) other.stream->cancel();
  }
  if (--unfinished_ == 0) result_ = failure_;
}

/// Under the lock. Makes the next event `message_` or `result_`, or both; false if there is none.
template <typename Message>
bool GenerationReactor<Message>::next_message() {
  while (!result_.has_value()) {
    if (events_.empty()) take_events();
    if (events_.empty()) return false;
    const auto [choice, event] = std::move(events_.front());
    events_.pop_front();
    if (const auto* end = std::get_if<mobius::Finish>(&event)) note_end(choice, *end);
    // Nobody reads a call that is cancelled or fails: only its end matters.
    if (abandoned_->load() || !failure_.ok()) continue;
    message_.Clear();
    if (!writer_->write(choice, event, message_)) continue;
    sending_ = true;
    sending_since_ = Clock::now();
    return true;
  }
  return true;
}

template <typename Message>
bool GenerationReactor<Message>::write_is_overdue() const {
  const std::lock_guard lock(mutex_);
  return sending_ && Clock::now() - sending_since_ > shared_.write_timeout;
}

template <typename Message>
void GenerationReactor<Message>::cut_off() {
  if (!write_is_overdue()) return;
  if (!std::exchange(cut_off_, true)) {
    log_event(LogLevel::info, "grpc_client_cut_off",
              {{"id", generation_.id}, {"reason", "it does not read"}});
  }
  // The write fails, and with it the call.
  context_.TryCancel();
}

template <typename Message>
void GenerationReactor<Message>::cancel_all() const {
  const std::lock_guard lock(mutex_);
  for (const Choice& choice : generation_.choices) choice.stream->cancel();
}

template <typename Message>
void GenerationReactor<Message>::OnWriteDone(bool ok) {
  {
    const std::lock_guard lock(mutex_);
    sending_ = false;
  }
  if (!ok) {
    // The client is gone: the engine answers the cancellation with Finishes, which end the call.
    abandoned_->store(true);
    cancel_all();
  }
  schedule();
}

template <typename Message>
void GenerationReactor<Message>::OnCancel() {
  abandoned_->store(true);
  cancel_all();
}

template <typename Message>
void GenerationReactor<Message>::OnDone() {
  std::vector<Choice> choices;
  {
    const std::lock_guard lock(mutex_);
    choices = generation_.choices;
  }
  for (const Choice& choice : choices) choice.stream->on_events({});
  shared_.remove(this);
  self_.reset();
}

template <typename Message>
void GenerationReactor<Message>::finish(const Status& status) {
  {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    finished_ = true;
  }
  this->Finish(access_.end(writer_->named(status)));
}

template class GenerationReactor<v1::GenerateResponse>;
template class GenerationReactor<vllm::grpc::engine::GenerateResponse>;

}  // namespace mobius
