#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "mobius/v1/mobius.pb.h"
#include "server/generation_service.h"
#include "server/grpc/call_access.h"
#include "server/grpc/call_context.h"
#include "server/tools/tool_call_parser.h"

namespace mobius {

/// One call's stream of events. gRPC calls back on its threads, the engine wakes it on its own;
/// conversion and sending run on `pump`'s thread, so that the engine's only posts. At most one
/// message is being sent: while a client does not read, events wait in the engine's Stream, of
/// which there are at most max_tokens. A message that is not taken within the write timeout cancels
/// the call.
///
/// Keeps itself alive until gRPC is done with the call.
class GenerationReactor : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                          public std::enable_shared_from_this<GenerationReactor> {
 public:
  /// A reactor that hands the input to the service.
  static std::shared_ptr<GenerationReactor> start_chat(grpc::CallbackServerContext& context,
                                                       CallContext& shared,
                                                       const v1::ChatRequest& request);
  static std::shared_ptr<GenerationReactor> start_generate(grpc::CallbackServerContext& context,
                                                           CallContext& shared,
                                                           const v1::GenerateRequest& request);

  /// `method`: a literal, for the log.
  GenerationReactor(grpc::CallbackServerContext& context, CallContext& shared, const char* method)
      : context_(context), shared_(shared), access_(context, method) {}

  /// Thread-safe. Has the message that is being sent been so for longer than the write timeout?
  bool write_is_overdue() const;
  /// On the pump's thread: cancels the call if that is still so.
  void cut_off();

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  using Clock = std::chrono::steady_clock;

  static std::shared_ptr<GenerationReactor> make(grpc::CallbackServerContext& context,
                                                 CallContext& shared, const char* method);
  /// `submit` hands the input to the service.
  template <typename Input, typename Message, typename Submit>
  void start(const Message& request, std::string prompt_name, const Submit& submit);
  void set_deadline(GenerationOptions& options) const;
  void started(StatusOr<Generation> result);
  void schedule();
  void pump();
  bool next_message();
  void finish(const Status& status);

  grpc::CallbackServerContext& context_;
  CallContext& shared_;
  CallAccess access_;
  std::shared_ptr<GenerationReactor> self_;
  std::shared_ptr<std::atomic<bool>> abandoned_ = std::make_shared<std::atomic<bool>>(false);

  std::string prompt_name_ = "prompt";  // the client's name for it
  bool with_logprobs_ = false;

  mutable std::mutex mutex_;
  Generation generation_;
  std::optional<ToolCallParser> calls_;  // where it may call tools
  std::deque<Event> events_;
  v1::GenerateResponse message_;  // the one being sent
  bool sending_ = false;
  Clock::time_point sending_since_;
  bool cut_off_ = false;
  std::optional<Status> result_;  // the generation is over; sent after the last message
  bool finished_ = false;         // Finish was called: gRPC needs nothing more from us
};

}  // namespace mobius
