#include "server/grpc/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>

#include "mobius/v1/mobius.grpc.pb.h"
#include "server/grpc/grpc_credentials.h"
#include "server/grpc/mobius_calls.h"
#include "server/grpc/unary_calls.h"
#include "server/grpc/vllm_calls.h"
#include "vllm/vllm_engine.grpc.pb.h"

namespace mobius {
namespace {

constexpr const char* kServiceNames[] = {"mobius.v1.Mobius", "vllm.grpc.engine.VllmEngine"};

class MobiusService final : public v1::Mobius::CallbackService {
 public:
  explicit MobiusService(CallContext& shared) : shared_(shared) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override {
    return generate_call(*context, shared_, *request);
  }

  grpc::ServerWriteReactor<v1::GenerateResponse>* Chat(grpc::CallbackServerContext* context,
                                                       const v1::ChatRequest* request) override {
    return chat_call(*context, shared_, *request);
  }

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    return tokenize_call(*context, shared_, *request, *response);
  }

  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const v1::GetModelInfoRequest* /*request*/,
                                         v1::GetModelInfoResponse* response) override {
    return model_info_call(*context, shared_, *response);
  }

  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context,
                                    const v1::GetLoadRequest* /*request*/,
                                    v1::GetLoadResponse* response) override {
    return load_call(*context, shared_, *response);
  }

  grpc::ServerUnaryReactor* Abort(grpc::CallbackServerContext* context,
                                  const v1::AbortRequest* request,
                                  v1::AbortResponse* /*response*/) override {
    return abort_call(*context, shared_, *request);
  }

 private:
  CallContext& shared_;
};

class VllmService final : public vllm::grpc::engine::VllmEngine::CallbackService {
 public:
  explicit VllmService(CallContext& shared) : shared_(shared) {}

  grpc::ServerWriteReactor<vllm::grpc::engine::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context,
      const vllm::grpc::engine::GenerateRequest* request) override {
    return vllm_generate_call(*context, shared_, *request);
  }

  grpc::ServerUnaryReactor* HealthCheck(
      grpc::CallbackServerContext* context,
      const vllm::grpc::engine::HealthCheckRequest* /*request*/,
      vllm::grpc::engine::HealthCheckResponse* response) override {
    return vllm_health_call(*context, shared_, *response);
  }

  grpc::ServerUnaryReactor* Abort(grpc::CallbackServerContext* context,
                                  const vllm::grpc::engine::AbortRequest* request,
                                  vllm::grpc::engine::AbortResponse* /*response*/) override {
    return vllm_abort_call(*context, shared_, *request);
  }

  grpc::ServerUnaryReactor* GetModelInfo(
      grpc::CallbackServerContext* context,
      const vllm::grpc::engine::GetModelInfoRequest* /*request*/,
      vllm::grpc::engine::GetModelInfoResponse* response) override {
    return vllm_model_info_call(*context, shared_, *response);
  }

  grpc::ServerUnaryReactor* GetServerInfo(
      grpc::CallbackServerContext* context,
      const vllm::grpc::engine::GetServerInfoRequest* /*request*/,
      vllm::grpc::engine::GetServerInfoResponse* response) override {
    return vllm_server_info_call(*context, shared_, *response);
  }

  grpc::ServerUnaryReactor* GetLoads(grpc::CallbackServerContext* context,
                                     const vllm::grpc::engine::GetLoadsRequest* request,
                                     vllm::grpc::engine::GetLoadsResponse* response) override {
    return vllm_loads_call(*context, shared_, *request, *response);
  }

  grpc::ServerWriteReactor<smg::grpc::common::GetTokenizerChunk>* GetTokenizer(
      grpc::CallbackServerContext* context,
      const smg::grpc::common::GetTokenizerRequest* /*request*/) override {
    return vllm_tokenizer_call(*context, shared_);
  }

 private:
  CallContext& shared_;
};

/// Bounds what clients can make gRPC hold, and lets it notice those that are gone.
void set_limits(const ServerConfig::Grpc& options, grpc::ServerBuilder& builder) {
  grpc::ResourceQuota quota("mobius");
  quota.Resize(static_cast<std::size_t>(options.max_memory_bytes));
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(static_cast<int>(options.max_message_bytes));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                             static_cast<int>(options.max_calls_per_connection));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                             static_cast<int>(options.keepalive_seconds * 1000));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  // From a connection's first byte to its settings, TLS included.
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 20000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Clients may ask for signs of life too, this often.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000);
}

}  // namespace

void quiet_grpc() {
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
}

struct GrpcServer::Impl {
  Impl(GenerationService& generation, const GrpcOptions& options)
      : shared(generation, options.keys, std::chrono::seconds(options.grpc.write_timeout_seconds)) {
  }

  CallContext shared;
  MobiusService mobius{shared};
  VllmService vllm{shared};
  int port = 0;
  std::shared_ptr<grpc::ServerCredentials> credentials;
  std::unique_ptr<grpc::Server> server;
};

GrpcServer::GrpcServer(const GrpcOptions& access, GenerationService& service)
    : impl_(std::make_unique<Impl>(service, access)) {
  const ServerConfig::Grpc& options = access.grpc;
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  const std::string address = authority(options.address, options.port);
  grpc::ServerBuilder builder;
  impl_->credentials = grpc_credentials(access.certificates);
  builder.AddListeningPort(address, impl_->credentials, &impl_->port);
  // gRPC would share a port with another process that listens on it; a mistake, not a wish.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  set_limits(options, builder);
  builder.RegisterService(&impl_->mobius);
  builder.RegisterService(&impl_->vllm);
  impl_->server = builder.BuildAndStart();
  if (impl_->server == nullptr || impl_->port == 0) {
    throw std::runtime_error("grpc.port: cannot listen on " + options.address + " port " +
                             std::to_string(options.port));
  }
  set_serving(true);
}

GrpcServer::~GrpcServer() {
  if (impl_->server == nullptr) return;
  // A moment for answers that are done and on their way; what still runs is cancelled then.
  impl_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(500));
  impl_->server->Wait();
}

std::uint16_t GrpcServer::port() const {
  return static_cast<std::uint16_t>(impl_->port);
}

void GrpcServer::set_serving(bool serving) {
  grpc::HealthCheckServiceInterface* health = impl_->server->GetHealthCheckService();
  for (const char* const name : kServiceNames) health->SetServingStatus(name, serving);
  health->SetServingStatus("", serving);
}

bool GrpcServer::wait_idle(std::chrono::steady_clock::time_point deadline) {
  while (impl_->shared.calls() > 0) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

}  // namespace mobius
