#include "server/grpc/generation_reactor.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "server/generation_log.h"
#include "server/grpc/grpc_convert.h"

namespace mobius {
namespace {

/// Metadata values must be printable ASCII; a field's name may hold a client's own bytes.
std::string metadata_value(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < 0x20 || c > 0x7E; }, '?');
  return text;
}

}  // namespace

std::shared_ptr<GenerationReactor> GenerationReactor::start_chat(
    grpc::CallbackServerContext& context, CallContext& shared, const v1::ChatRequest& request) {
  auto reactor = std::make_shared<GenerationReactor>(context, shared);
  reactor->self_ = reactor;
  StatusOr<ChatInput> input = to_input(request);
  if (!input.ok()) {
    reactor->finish(input.status());
    return reactor;
  }
  reactor->prepare(input.value().options);
  shared.service.chat(std::move(input).value(), reactor->abandoned_, reactor->on_started());
  return reactor;
}

std::shared_ptr<GenerationReactor> GenerationReactor::start_generate(
    grpc::CallbackServerContext& context, CallContext& shared, const v1::GenerateRequest& request) {
  auto reactor = std::make_shared<GenerationReactor>(context, shared);
  reactor->self_ = reactor;
  StatusOr<CompletionInput> input = to_input(request);
  if (!input.ok()) {
    reactor->finish(input.status());
    return reactor;
  }
  reactor->prepare(input.value().options);
  shared.service.complete(std::move(input).value(), reactor->abandoned_, reactor->on_started());
  return reactor;
}

void GenerationReactor::prepare(GenerationOptions& options) {
  with_logprobs_ = options.top_logprobs.has_value();
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

GenerationService::Started GenerationReactor::on_started() {
  return [self = shared_from_this()](StatusOr<Generation> result) {
    self->started(std::move(result));
  };
}

void GenerationReactor::started(StatusOr<Generation> result) {
  if (!result.ok()) {
    finish(result.status());
    return;
  }
  std::shared_ptr<Stream> stream = result.value().stream;
  {
    const std::lock_guard lock(mutex_);
    generation_ = std::move(result).value();
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

/// Sends the next event, if no other is being sent. `sending_` and `finished_` guard `message_`, so
/// that gRPC is called without the lock.
void GenerationReactor::pump() {
  Status failure;
  bool last = false;
  {
    const std::lock_guard lock(mutex_);
    if (sending_ || finished_ || generation_.stream == nullptr) return;
    if (events_.empty()) {
      std::vector<Event> taken = generation_.stream->take();
      std::move(taken.begin(), taken.end(), std::back_inserter(events_));
    }
    // Nobody reads a cancelled call: only its end matters.
    while (abandoned_->load() && !events_.empty() &&
           !std::holds_alternative<mobius::Finish>(events_.front())) {
      events_.pop_front();
    }
    if (events_.empty()) return;
    const Event event = std::move(events_.front());
    events_.pop_front();
    const auto* end = std::get_if<mobius::Finish>(&event);
    last = end != nullptr;
    if (last) log_generation("grpc", generation_.id, *end);
    if (last && end->reason == FinishReason::error) {
      failure = end->status;
    } else {
      message_ = to_message(generation_.id, event, with_logprobs_, shared_.service.tokenizer());
      sending_ = true;
      finished_ = last;
    }
  }
  if (!failure.ok()) {
    finish(failure);
  } else if (last) {
    StartWriteAndFinish(&message_, grpc::WriteOptions(), grpc::Status::OK);
  } else {
    StartWrite(&message_);
  }
}

void GenerationReactor::OnWriteDone(bool ok) {
  std::shared_ptr<Stream> stream;
  {
    const std::lock_guard lock(mutex_);
    sending_ = false;
    stream = generation_.stream;
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
  if (generation_.stream != nullptr) generation_.stream->cancel();
}

void GenerationReactor::OnDone() {
  std::shared_ptr<Stream> stream;
  {
    const std::lock_guard lock(mutex_);
    stream = generation_.stream;
  }
  if (stream != nullptr) stream->on_events({});
  shared_.calls.fetch_sub(1);
  self_.reset();
}

void GenerationReactor::finish(const Status& status) {
  {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    finished_ = true;
  }
  const Status renamed = with_grpc_names(status);
  if (!renamed.field().empty()) {
    context_.AddTrailingMetadata("mobius-field", metadata_value(renamed.field()));
  }
  Finish(to_grpc(renamed));
}

}  // namespace mobius
