#include "server/serve.h"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "models/llama_runner.h"
#include "server/generation_service.h"
#include "server/grpc/grpc_server.h"
#include "server/http/http_server.h"
#include "server/kv_events/kv_event_publisher.h"
#include "server/log.h"
#include "server/model_setup.h"
#include "server/security/certificates.h"
#include "server/security/file_watch.h"
#include "server/security/key_store.h"
#include "server/shutdown_signals.h"

namespace mobius {
namespace {

using Clock = std::chrono::steady_clock;

/// For the last messages of requests that did not end in time: a step, and a network.
constexpr std::chrono::seconds kFarewell{5};

std::string model_name(const ServerConfig& config) {
  if (!config.model.name.empty()) return config.model.name;
  const std::filesystem::path folder = config.model.path;
  // "models/tiny/" has an empty file name.
  return (folder.has_filename() ? folder : folder.parent_path()).filename().string();
}

/// nullptr where nobody is to be told.
std::unique_ptr<KvEventPublisher> make_kv_event_publisher(const ServerConfig& config) {
  if (config.kv_events.endpoint.empty()) return nullptr;
  KvEventOptions options;
  options.endpoint = config.kv_events.endpoint;
  options.replay_endpoint = config.kv_events.replay_endpoint;
  options.topic = config.kv_events.topic;
  options.buffer_batches = static_cast<std::size_t>(config.kv_events.buffer_batches);
  options.page_tokens = static_cast<std::int32_t>(config.kv.page_tokens);
  return std::make_unique<KvEventPublisher>(options);
}

/// `publisher` may be null, and must outlive the engine. Throws what the model's first token
/// throws.
std::unique_ptr<Engine> make_engine(const ServerConfig& config, std::unique_ptr<LlamaRunner> llama,
                                    const WrapRunner& wrap,
                                    std::shared_ptr<const Tokenizer> tokenizer,
                                    KvEventPublisher* publisher) {
  EngineOptions options;
  if (publisher != nullptr) {
    options.on_cache_events = [publisher](std::vector<CacheEvent> events) {
      publisher->publish(std::move(events));
    };
  }
  options.max_running = static_cast<std::int32_t>(config.engine.max_running);
  options.max_waiting = static_cast<std::int32_t>(config.engine.max_waiting);
  options.max_waiting_tokens = config.engine.max_waiting_tokens;
  options.step_tokens = static_cast<std::int32_t>(config.engine.step_tokens);
  options.itl_target = std::chrono::milliseconds(config.engine.itl_target_ms);
  options.prefix_cache = config.kv.prefix_cache;
  options.end_tokens = llama->config().eos_tokens;
  options.on_failure = [](const std::string& what) {
    log_event(LogLevel::error, "engine_failed", {{"error", what}});
    request_shutdown();
  };
  std::unique_ptr<Runner> runner = std::move(llama);
  if (wrap) runner = wrap(std::move(runner));
  produce_token(*runner);
  return std::make_unique<Engine>(options, std::move(runner), std::move(tokenizer));
}

GenerationServiceOptions service_options(const ServerConfig& config, const LlamaConfig& model) {
  GenerationServiceOptions options;
  options.model_name = model_name(config);
  options.model_path = std::filesystem::absolute(config.model.path).lexically_normal().string();
  options.bos_token = model.bos_token;
  options.end_tokens = model.eos_tokens;
  options.attention = attention_settings(config);
  options.max_queued_bytes = static_cast<std::size_t>(config.server.max_queued_bytes);
  options.tokenizer_threads = static_cast<std::size_t>(config.server.tokenizer_threads);
  options.max_queued =
      static_cast<std::size_t>(config.engine.max_running + config.engine.max_waiting);
  return options;
}

/// Writes the file whole or not at all: a script that sees it can use it.
void write_port_file(const std::string& file, const std::string& http, const std::string& grpc) {
  const std::string draft = file + ".tmp";
  std::ofstream stream(draft);
  stream << R"({"http": ")" << http << R"(", "grpc": ")" << grpc << "\"}\n";
  stream.close();
  if (!stream || std::rename(draft.c_str(), file.c_str()) != 0) {
    throw std::runtime_error("server.port_file: \"" + file + "\" cannot be written");
  }
}

/// Limits and log level may have changed; of what needs a restart, the log says so. `running` is
/// what counts, before and after.
void reload_settings(ServerConfig& running, const ConfigSources& sources, KeyStore& keys) {
  ConfigReload reload = reload_config(running, sources);
  for (const std::string& error : reload.errors) {
    log_event(LogLevel::error, "config_not_loaded", {{"error", error}});
  }
  for (const std::string_view key : reload.kept) {
    log_event(LogLevel::warn, "config_needs_restart", {{"key", key}});
  }
  for (const std::string_view key : reload.changed) {
    log_event(LogLevel::info, "config_changed", {{"key", key}});
  }
  running = std::move(reload.config);
  set_log_level(running.log.level);
  const ServerConfig::Security& security = running.security;
  keys.set_default_limits(
      {security.requests_per_minute, security.tokens_per_minute, security.concurrent_requests});
}

/// A mistake in the file must not lock everybody out: the keys that were good stay.
void reload_keys(KeyStore& keys) {
  const Status status = keys.reload();
  const std::int64_t count = static_cast<std::int64_t>(keys.size());
  if (status.ok()) {
    log_event(LogLevel::info, "keys_loaded", {{"keys", count}});
  } else {
    log_event(LogLevel::error, "keys_not_loaded", {{"error", status.message()}, {"keys", count}});
  }
}

/// The same: half a pair of certificate and key is there for a moment, and stays unused.
void reload_certificates(Certificates& certificates) {
  const Status status = certificates.reload();
  if (!status.ok()) {
    log_event(LogLevel::error, "certificate_not_loaded", {{"error", status.message()}});
  } else if (const auto current = certificates.current(); current != nullptr) {
    log_event(LogLevel::info, "certificate_loaded", {{"expires", current->expires}});
  }
}

/// What the watch calls must not throw: a reload that fails leaves a server that runs.
template <typename Reload>
void guarded(const Reload& reload) try {
  reload();
} catch (const std::exception& error) {
  log_event(LogLevel::error, "reload_failed", {{"error", error.what()}});
}

}  // namespace

int serve(const ServerConfig& config, const ConfigSources& sources, const WrapRunner& wrap) {
  setup_logging(config.log.level, config.log.format, config.log.file);
  block_shutdown_signals();
  quiet_grpc();

  KeyStore keys(config.security);
  Certificates certificates(config.tls);
  ServerConfig running = config;  // used by the watch's thread alone
  std::atomic<std::int64_t> drain_seconds = config.server.drain_seconds;
  const auto reload = [&] {
    guarded([&] { reload_settings(running, sources, keys); });
    guarded([&] { reload_keys(keys); });
    drain_seconds = running.server.drain_seconds;
  };
  FileWatch watch({{{sources.file, config.security.key_file}, reload},
                   {{config.tls.certificate, config.tls.key, config.tls.client_ca},
                    [&] { guarded([&] { reload_certificates(certificates); }); }}});

  // Destroyed in this order: front ends, then what they call, then the engine.
  std::unique_ptr<KvEventPublisher> publisher;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<GenerationService> service;
  HttpServer http({config.http, keys, certificates, config.security.metrics_need_key});
  const std::string http_at = authority(config.http.address, http.port());
  log_event(LogLevel::debug, "starting", {{"http", http_at}});
  {
    const EndAtOnce until_ready([] { log_event(LogLevel::info, "stopped", {{"drained", "yes"}}); });
    auto tokenizer = Tokenizer::load(config.model.path);
    auto runner = load_llama(model_options(config), load_events());
    if (const Status status = check_attention(config, runner->plan()); !status.ok()) {
      throw std::runtime_error(status.message());
    }
    std::cout << render(runner->plan()) << std::flush;
    const GenerationServiceOptions options = service_options(config, runner->config());
    publisher = make_kv_event_publisher(config);
    engine = make_engine(config, std::move(runner), wrap, tokenizer, publisher.get());
    service = std::make_unique<GenerationService>(options, *engine, tokenizer);
  }
  GrpcServer grpc({config.grpc, keys, certificates}, *service);
  http.serve(*service);
  const std::string grpc_at = authority(config.grpc.address, grpc.port());
  if (!config.server.port_file.empty()) write_port_file(config.server.port_file, http_at, grpc_at);
  std::cout << "model " << service->model_name() << "\nHTTP  "
            << (config.tls.certificate.empty() ? "http://" : "https://") << http_at << "\ngRPC  "
            << grpc_at << std::endl;
  log_event(LogLevel::info, "listening", {{"http", http_at}, {"grpc", grpc_at}});
  if (publisher) {
    log_event(
        LogLevel::info, "publishing_kv_events",
        {{"endpoint", publisher->endpoint()}, {"replay_endpoint", publisher->replay_endpoint()}});
  }
  for (const std::string& warning : config_warnings(config)) {
    log_event(LogLevel::warn, "open_to_others", {{"text", warning}});
  }

  const int signal = wait_for_shutdown_signal([&] { watch.force(); });
  log_event(LogLevel::info, "draining",
            {{"signal", std::int64_t{signal}}, {"seconds", drain_seconds.load()}});
  const auto wait_idle = [&](Clock::duration time) {
    const Clock::time_point deadline = Clock::now() + time;
    const bool grpc_idle = grpc.wait_idle(deadline);
    return http.wait_idle(deadline) && grpc_idle;
  };
  service->drain();
  grpc.set_serving(false);
  http.stop_accepting();
  const bool drained = wait_idle(std::chrono::seconds(drain_seconds));
  if (!drained) {
    // What still runs ends with `unavailable`; a moment for that to reach the clients.
    engine->stop();
    wait_idle(kFarewell);
  }
  const bool healthy = engine->stats().healthy;
  log_event(LogLevel::info, "stopped", {{"drained", drained ? "yes" : "no"}});
  return healthy ? 0 : 1;
}

}  // namespace mobius
