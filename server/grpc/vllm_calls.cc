#include "server/grpc/vllm_calls.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <ctime>
#include <string>

#include "server/grpc/answer_now.h"
#include "server/grpc/generation_reactor.h"

namespace mobius {
namespace {

/// ISO 8601, UTC.
std::string time_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  const std::size_t length = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return {text.data(), length};
}

double share(std::int64_t part, std::int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

}  // namespace

grpc::ServerWriteReactor<vllm_api::GenerateResponse>* vllm_generate_call(
    grpc::CallbackServerContext& context, CallContext& shared,
    const vllm_api::GenerateRequest& request) {
  const auto reactor = GenerationReactor<vllm_api::GenerateResponse>::make(
      context, shared, "VllmEngine.Generate", make_vllm_writer(request));
  const std::int32_t vocab_size = shared.service.engine().model().vocab_size;
  reactor->start([&] { return to_input(request, vocab_size); });
  return reactor.get();
}

grpc::ServerUnaryReactor* vllm_health_call(grpc::CallbackServerContext& context,
                                           CallContext& shared,
                                           vllm_api::HealthCheckResponse& response) {
  return answer_now(context, shared, "VllmEngine.HealthCheck", LogLevel::debug,
                    [&](const CallAccess&) {
                      const bool ready = shared.service.ready();
                      response.set_healthy(ready);
                      response.set_message(ready ? "ready" : "not ready");
                      return Status();
                    });
}

grpc::ServerUnaryReactor* vllm_abort_call(grpc::CallbackServerContext& context, CallContext& shared,
                                          const vllm_api::AbortRequest& request) {
  return answer_now(context, shared, "VllmEngine.Abort", LogLevel::info,
                    [&](const CallAccess& access) {
                      for (const std::string& id : request.request_ids()) {
                        // Routers send it for requests that have ended, too.
                        static_cast<void>(shared.service.abort(id, access.caller().account.get()));
                      }
                      return Status();
                    });
}

grpc::ServerUnaryReactor* vllm_model_info_call(grpc::CallbackServerContext& context,
                                               CallContext& shared,
                                               vllm_api::GetModelInfoResponse& response) {
  return answer_now(context, shared, "VllmEngine.GetModelInfo", LogLevel::debug,
                    [&](const CallAccess&) {
                      const GenerationService& service = shared.service;
                      const RunnerInfo& info = service.engine().model();
                      response.set_model_path(service.model_path());
                      response.set_tokenizer_path(service.model_path());
                      response.set_served_model_name(service.model_name());
                      response.set_is_generation(true);
                      response.set_model_type("llama");
                      response.add_architectures("LlamaForCausalLM");
                      const std::int32_t context_tokens = info.limits.max_context;
                      response.set_max_context_length(static_cast<std::uint32_t>(context_tokens));
                      response.set_max_req_input_len(context_tokens - 1);
                      response.set_vocab_size(static_cast<std::uint32_t>(info.vocab_size));
                      for (const std::int32_t id : service.end_tokens()) {
                        response.add_eos_token_ids(id);
                      }
                      response.set_bos_token_id(std::max(service.bos_token(), 0));
                      return Status();
                    });
}

grpc::ServerUnaryReactor* vllm_server_info_call(grpc::CallbackServerContext& context,
                                                CallContext& shared,
                                                vllm_api::GetServerInfoResponse& response) {
  return answer_now(
      context, shared, "VllmEngine.GetServerInfo", LogLevel::debug, [&](const CallAccess&) {
        const EngineStats stats = shared.service.engine().stats();
        response.set_active_requests(static_cast<std::uint32_t>(stats.running + stats.waiting));
        response.set_is_paused(!shared.service.ready());
        const auto up = std::chrono::steady_clock::now() - shared.started;
        response.set_uptime_seconds(std::chrono::duration<double>(up).count());
        response.set_server_type("mobius");
        response.set_data_parallel_size(1);
        const RunnerInfo& info = shared.service.engine().model();
        response.set_block_size(info.page_tokens);
        response.set_max_num_seqs(info.limits.max_sequences);
        return Status();
      });
}

grpc::ServerUnaryReactor* vllm_loads_call(grpc::CallbackServerContext& context, CallContext& shared,
                                          const vllm_api::GetLoadsRequest& request,
                                          vllm_api::GetLoadsResponse& response) {
  return answer_now(
      context, shared, "VllmEngine.GetLoads", LogLevel::debug, [&](const CallAccess&) {
        response.set_timestamp(time_now());
        response.set_version(MOBIUS_VERSION);
        if (request.dp_rank() != 0) return Status();  // there is only that one
        response.set_dp_rank_count(1);
        const EngineStats stats = shared.service.engine().stats();
        const RunnerInfo& info = shared.service.engine().model();
        vllm_api::SchedulerLoad& load = *response.add_loads();
        load.set_num_running_reqs(stats.running);
        load.set_num_waiting_reqs(stats.waiting);
        load.set_num_total_reqs(stats.running + stats.waiting);
        load.set_num_waiting_uncached_tokens(
            static_cast<std::int32_t>(std::min(stats.waiting_tokens, std::int64_t{1} << 30)));
        load.set_num_used_tokens(stats.pages_used * info.page_tokens);
        load.set_max_total_num_tokens(stats.pages_total * info.page_tokens);
        load.set_token_usage(share(stats.pages_used, stats.pages_total));
        load.set_cache_hit_rate(
            share(stats.cached_tokens, stats.cached_tokens + stats.prompt_tokens));
        load.set_max_running_requests(info.limits.max_sequences);
        load.set_utilization(share(stats.running, info.limits.max_sequences));
        return Status();
      });
}

}  // namespace mobius
