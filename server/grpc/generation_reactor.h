#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <deque>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>

#include "mobius/v1/mobius.pb.h"
#include "server/generation_service.h"
#include "server/worker_pool.h"

namespace mobius {

/// What all calls share.
struct CallContext {
  explicit CallContext(GenerationService& generation)
      : service(generation), pump(1, std::numeric_limits<std::size_t>::max()) {}

  GenerationService& service;
  WorkerPool pump;
  std::atomic<int> calls = 0;  ///< being answered
};

/// One call's stream of events. gRPC calls back on its threads, the engine wakes it on its own;
/// conversion and sending run on `pump`'s thread, so that the engine's only posts. At most one
/// message is being sent: while a client does not read, events wait in the engine's Stream, of
/// which there are at most max_tokens.
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

  GenerationReactor(grpc::CallbackServerContext& context, CallContext& shared)
      : context_(context), shared_(shared) {
    shared_.calls.fetch_add(1);
  }

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  void prepare(GenerationOptions& options);
  GenerationService::Started on_started();
  void started(StatusOr<Generation> result);
  void schedule();
  void pump();
  void finish(const Status& status);

  grpc::CallbackServerContext& context_;
  CallContext& shared_;
  std::shared_ptr<GenerationReactor> self_;
  std::shared_ptr<std::atomic<bool>> abandoned_ = std::make_shared<std::atomic<bool>>(false);

  std::mutex mutex_;
  Generation generation_;
  bool with_logprobs_ = false;
  std::deque<Event> events_;
  v1::GenerateResponse message_;  // the one being sent
  bool sending_ = false;
  bool finished_ = false;  // Finish was called: gRPC needs nothing more from us
};

}  // namespace mobius
