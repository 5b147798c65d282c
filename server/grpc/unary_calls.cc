#include "server/grpc/unary_calls.h"

#include <exception>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "server/grpc/answer_now.h"
#include "server/grpc/grpc_convert.h"
#include "server/log.h"

namespace mobius {
namespace {

using Tokens = std::vector<std::int32_t>;

/// Its field as a TokenizeRequest has it.
Status in_chat(const Status& status) {
  const Status named = with_grpc_names(status, "messages");
  return named.field().empty() ? named : named.with_field("chat." + named.field());
}

StatusOr<Tokens> tokens_of(const GenerationService& service, const v1::TokenizeRequest& request) {
  if (request.ByteSizeLong() > kMaxTokenizeBytes) {
    return Status::invalid("", "the message has " + std::to_string(request.ByteSizeLong()) +
                                   " bytes; Tokenize takes at most " +
                                   std::to_string(kMaxTokenizeBytes));
  }
  if (Status status = service.check_model(request.model()); !status.ok()) return status;
  switch (request.prompt_case()) {
    case v1::TokenizeRequest::kText: {
      Tokens tokens;
      const bool begin = !request.has_add_begin_of_text() || request.add_begin_of_text();
      if (begin && service.bos_token() >= 0) tokens.push_back(service.bos_token());
      service.tokenizer().encode(request.text(), tokens);
      return tokens;
    }
    case v1::TokenizeRequest::kChat: {
      const StatusOr<ChatInput> input = to_input(request.chat());
      if (!input.ok()) return in_chat(input.status());
      StatusOr<Tokens> tokens = service.prompt_of(input.value());
      if (!tokens.ok()) return in_chat(tokens.status());
      return tokens;
    }
    case v1::TokenizeRequest::PROMPT_NOT_SET: break;
  }
  return Status::invalid("prompt", "prompt is missing; must be text or chat");
}

Status tokenize(const GenerationService& service, const v1::TokenizeRequest& request,
                v1::TokenizeResponse& response) try {
  const StatusOr<Tokens> tokens = tokens_of(service, request);
  if (!tokens.ok()) return tokens.status();
  response.mutable_ids()->Add(tokens.value().begin(), tokens.value().end());
  response.set_max_context(service.engine().model().limits.max_context);
  return {};
} catch (const std::bad_alloc&) {
  return {StatusCode::resource_exhausted, "the server has no memory for this request"};
} catch (const std::exception& error) {
  log_event(LogLevel::error, "request_failed", {{"error", error.what()}});
  return {StatusCode::internal, "the request could not be answered"};
}

}  // namespace

grpc::ServerUnaryReactor* tokenize_call(grpc::CallbackServerContext& context, CallContext& shared,
                                        const v1::TokenizeRequest& request,
                                        v1::TokenizeResponse& response) {
  grpc::ServerUnaryReactor* const reactor = context.DefaultReactor();
  const auto access = std::make_shared<CallAccess>(context, "Tokenize");
  Status status = access->admit(shared.keys, /*counted=*/true);
  if (status.ok()) {
    const bool posted = shared.token_work.post([&, reactor, access] {
      const Status done = context.IsCancelled()
                              ? Status(StatusCode::cancelled, "the client is gone")
                              : tokenize(shared.service, request, response);
      if (!done.ok()) shared.service.refused(done.code());
      // Last: the context may be gone when this returns.
      reactor->Finish(access->end(done));
    });
    if (posted) return reactor;
    status = Status(StatusCode::resource_exhausted, "too many requests wait to be tokenized");
  }
  shared.service.refused(status.code());
  reactor->Finish(access->end(status));
  return reactor;
}

grpc::ServerUnaryReactor* model_info_call(grpc::CallbackServerContext& context, CallContext& shared,
                                          v1::GetModelInfoResponse& response) {
  return answer_now(context, shared, "GetModelInfo", LogLevel::debug, [&](const CallAccess&) {
    const RunnerInfo& info = shared.service.engine().model();
    response.set_name(shared.service.model_name());
    response.set_device(info.device);
    response.set_max_context(info.limits.max_context);
    response.set_vocab_size(info.vocab_size);
    response.set_layers(info.num_layers);
    response.set_heads(info.num_heads);
    response.set_kv_heads(info.num_kv_heads);
    response.set_page_tokens(info.page_tokens);
    response.set_pages(info.num_pages);
    response.set_routing(info.tells_blocks);
    *response.mutable_attention() = to_message(shared.service.attention());
    return Status();
  });
}

grpc::ServerUnaryReactor* load_call(grpc::CallbackServerContext& context, CallContext& shared,
                                    v1::GetLoadResponse& response) {
  return answer_now(context, shared, "GetLoad", LogLevel::debug, [&](const CallAccess&) {
    const EngineStats stats = shared.service.engine().stats();
    response.set_ready(shared.service.ready());
    response.set_running(stats.running);
    response.set_waiting(stats.waiting);
    response.set_waiting_tokens(stats.waiting_tokens);
    response.set_pages(stats.pages_total);
    response.set_pages_used(stats.pages_used);
    response.set_pages_cached(stats.pages_cached);
    response.set_prompt_tokens_per_second(stats.prompt_tokens_per_second);
    response.set_prompt_tokens(stats.prompt_tokens);
    response.set_cached_tokens(stats.cached_tokens);
    response.set_generated_tokens(stats.generated_tokens);
    response.set_requests_finished(stats.requests_finished);
    return Status();
  });
}

grpc::ServerUnaryReactor* abort_call(grpc::CallbackServerContext& context, CallContext& shared,
                                     const v1::AbortRequest& request) {
  return answer_now(context, shared, "Abort", LogLevel::info, [&](const CallAccess& access) {
    return shared.service.abort(request.id(), access.caller().account.get());
  });
}

}  // namespace mobius
