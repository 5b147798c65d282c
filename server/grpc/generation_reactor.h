#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "server/generation_service.h"
#include "server/grpc/call_access.h"
#include "server/grpc/call_context.h"
#include "server/grpc/event_writer.h"

namespace mobius {

/// One call's stream of events, of all its choices. gRPC calls back on its threads, the engine
/// wakes it on its own; conversion and sending run on `pump`'s thread, so that the engine's only
/// posts. At most one message is being sent: while a client does not read, events wait in the
/// engine's Streams, of which there are at most max_tokens for each choice. A message that is not
/// taken within the write timeout cancels the call. When one choice fails, so does the call.
///
/// Keeps itself alive until gRPC is done with the call.
template <typename Message>
class GenerationReactor : public grpc::ServerWriteReactor<Message>,
                          public WatchedCall,
                          public std::enable_shared_from_this<GenerationReactor<Message>> {
 public:
  /// `method`: a literal, for the log.
  static std::shared_ptr<GenerationReactor> make(grpc::CallbackServerContext& context,
                                                 CallContext& shared, const char* method,
                                                 std::unique_ptr<EventWriter<Message>> writer);

  /// Checks who calls, and hands what `convert` makes of the request to the service. Once.
  /// `convert() -> StatusOr<ChatInput>` or `StatusOr<CompletionInput>`.
  template <typename Convert>
  void start(const Convert& convert) {
    if (!admit()) return;
    auto input = convert();
    if (!input.ok()) {
      finish(input.status());
      return;
    }
    submit(Input(std::move(input).value()));
  }

  bool write_is_overdue() const override;
  void cut_off() override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  using Clock = std::chrono::steady_clock;

  GenerationReactor(grpc::CallbackServerContext& context, CallContext& shared, const char* method,
                    std::unique_ptr<EventWriter<Message>> writer)
      : context_(context), shared_(shared), access_(context, method), writer_(std::move(writer)) {}

  bool admit();
  void submit(Input input);
  void set_deadline(GenerationOptions& options) const;
  void started(StatusOr<Generation> result);
  void schedule();
  void pump();
  void take_events();
  void note_end(std::size_t choice, const mobius::Finish& end);
  bool next_message();
  void cancel_all() const;
  void finish(const Status& status);

  grpc::CallbackServerContext& context_;
  CallContext& shared_;
  CallAccess access_;
  std::shared_ptr<GenerationReactor> self_;
  std::shared_ptr<std::atomic<bool>> abandoned_ = std::make_shared<std::atomic<bool>>(false);

  mutable std::mutex mutex_;
  std::unique_ptr<EventWriter<Message>> writer_;
  Generation generation_;
  std::size_t unfinished_ = 0;  // choices
  std::deque<std::pair<std::size_t, Event>> events_;
  Message message_;  // the one being sent
  bool sending_ = false;
  Clock::time_point sending_since_;
  bool cut_off_ = false;
  Status failure_;                // of the first choice that failed
  std::optional<Status> result_;  // the generation is over; sent after the last message
  bool finished_ = false;         // Finish was called: gRPC needs nothing more from us
};

}  // namespace mobius
