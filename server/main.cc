#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "models/llama_runner.h"
#include "server/check.h"
#include "server/cli/commands.h"
#include "server/config/command_line.h"
#include "server/config/config.h"
#include "server/config/environment.h"
#include "server/config/schema.h"
#include "server/config/sources.h"
#include "server/generation_service.h"
#include "server/grpc/grpc_server.h"
#include "server/http/http_probe.h"
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

/// A health check that takes longer says that the server is not well.
constexpr std::chrono::seconds kProbeLimit{3};

int report(const std::vector<std::string>& errors) {
  for (const std::string& error : errors) std::cerr << "mobius: " << error << '\n';
  return errors.empty() ? 0 : 1;
}

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

/// `publisher` may be null, and must outlive the engine.
std::unique_ptr<Engine> make_engine(const ServerConfig& config, std::unique_ptr<LlamaRunner> runner,
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
  options.end_tokens = runner->config().eos_tokens;
  options.on_failure = [](const std::string& what) {
    log_event(LogLevel::error, "engine_failed", {{"error", what}});
    request_shutdown();
  };
  return std::make_unique<Engine>(options, std::move(runner), std::move(tokenizer));
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

int probe(const ServerConfig& config, const std::string& path) {
  const std::string problem = probe_http(config.http, config.tls, path, kProbeLimit);
  if (!problem.empty()) std::cerr << "mobius: " << problem << '\n';
  return problem.empty() ? 0 : 1;
}

int serve(const ServerConfig& config, const ConfigSources& sources) {
  setup_logging(config.log.level, config.log.format, config.log.file);
  block_shutdown_signals();
  quiet_grpc();

  KeyStore keys(config.security);
  Certificates certificates(config.tls);
  ServerConfig running = config;  // used by the watch's thread alone
  std::atomic<std::int64_t> drain_seconds = config.server.drain_seconds;
  const auto reload = [&] {
    reload_settings(running, sources, keys);
    reload_keys(keys);
    drain_seconds = running.server.drain_seconds;
  };
  FileWatch watch({{{sources.file, config.security.key_file}, reload},
                   {{config.tls.certificate, config.tls.key, config.tls.client_ca},
                    [&] { reload_certificates(certificates); }}});

  auto tokenizer = Tokenizer::load(config.model.path);
  auto runner = load_llama(model_options(config), load_events());
  if (const Status status = check_attention(config, runner->plan()); !status.ok()) {
    throw std::runtime_error(status.message());
  }
  std::cout << render(runner->plan()) << std::flush;
  GenerationServiceOptions options;
  options.model_name = model_name(config);
  options.model_path = config.model.path;
  options.bos_token = runner->config().bos_token;
  options.end_tokens = runner->config().eos_tokens;
  options.attention = attention_settings(config);
  options.max_queued_bytes = static_cast<std::size_t>(config.server.max_queued_bytes);
  options.tokenizer_threads = static_cast<std::size_t>(config.server.tokenizer_threads);
  options.max_queued =
      static_cast<std::size_t>(config.engine.max_running + config.engine.max_waiting);
  const auto publisher = make_kv_event_publisher(config);
  const auto engine = make_engine(config, std::move(runner), tokenizer, publisher.get());

  // Destroyed in this order: front ends, then what they call, then the engine.
  GenerationService service(options, *engine, tokenizer);
  HttpServer http({config.http, keys, certificates, config.security.metrics_need_key}, service);
  GrpcServer grpc({config.grpc, keys, certificates}, service);
  const std::string http_at = authority(config.http.address, http.port());
  const std::string grpc_at = authority(config.grpc.address, grpc.port());
  if (!config.server.port_file.empty()) write_port_file(config.server.port_file, http_at, grpc_at);
  std::cout << "model " << options.model_name << "\nHTTP  "
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
  service.drain();
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

/// A client's command, or one that needs no server: these have command lines of their own.
std::optional<int> run_client(std::span<const char* const> arguments) {
  const std::string_view command = arguments.empty() ? "" : arguments.front();
  if (command == "chat") return chat_command(arguments);
  if (command == "bench") return bench_command(arguments);
  if (command == "tokenize") return tokenize_command(arguments);
  return {};
}

int run(std::span<const char* const> arguments) {
  if (const auto code = run_client(arguments)) return *code;
  const CommandLine command = parse_command_line(arguments);
  if (!command.errors.empty()) return report(command.errors);
  switch (command.action) {
    case CommandAction::help: std::cout << help_text(); return 0;
    case CommandAction::version: std::cout << "mobius " MOBIUS_VERSION "\n"; return 0;
    case CommandAction::print_config_docs: std::cout << config_docs_markdown(); return 0;
    case CommandAction::check:
    case CommandAction::probe:
    case CommandAction::serve: break;
  }
  const ConfigSources sources{
      command.config_file.empty() ? environment_config_file() : command.config_file,
      environment_overrides(), command.overrides};
  ServerConfig config;
  std::vector<std::string> errors = read_config(sources, config);
  // A probe asks a server that has a valid configuration of its own.
  if (errors.empty() && command.action != CommandAction::probe) errors = check_config(config);
  if (!errors.empty()) return report(errors);
  switch (command.action) {
    case CommandAction::check: return report(check_setup(config));
    case CommandAction::probe: return probe(config, command.probe_path);
    default: return serve(config, sources);
  }
}

}  // namespace
}  // namespace mobius

int main(int argc, char** argv) {
  try {
    const std::vector<const char*> arguments(argv + 1, argv + argc);
    return mobius::run(arguments);
  } catch (const std::exception& error) {
    std::cerr << "mobius: " << error.what() << '\n';
    return 1;
  }
}
