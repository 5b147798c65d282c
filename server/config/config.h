#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"

namespace mobius {

/// Everything that can be set, with its default. What each field means, its range and its unit are
/// in the schema (schema.cc), which also reads and writes these fields; there is no second list.
struct ServerConfig {
  struct Model {
    std::string path;
    std::string name;
    std::string dtype = "auto";
    std::string quantization = "none";
    std::int64_t max_context = 0;
  } model;

  struct Kv {
    std::string dtype = "auto";
    std::int64_t page_tokens = 128;
    std::int64_t bytes = 0;
    bool prefix_cache = true;
  } kv;

  struct Policy {
    std::string mode = "full";
    std::int64_t block = 512;
    std::int64_t top_k = 8;
  };
  struct Attention {
    Policy prefill;
    Policy decode;
    std::int64_t full_attention_last_layers = 0;
  } attention;

  struct Engine {
    std::int64_t max_running = 64;
    std::int64_t max_waiting = 1024;
    std::int64_t max_waiting_tokens = 0;
    std::int64_t step_tokens = 512;
    std::int64_t itl_target_ms = 0;
    std::string backend = "auto";
    std::int64_t cuda_device = 0;
    std::int64_t threads = 0;
  } engine;

  struct Http {
    std::string address = "127.0.0.1";
    std::int64_t port = 8000;
    std::int64_t threads = 2;
    std::int64_t max_connections = 1024;
    std::int64_t max_header_bytes = 16384;
    std::int64_t max_body_bytes = 33554432;
    std::int64_t header_timeout_seconds = 20;
    std::int64_t body_timeout_seconds = 120;
    std::int64_t write_timeout_seconds = 60;
    std::int64_t idle_timeout_seconds = 75;
    std::int64_t keepalive_comment_seconds = 10;
    std::string cors_origins;
  } http;

  struct Grpc {
    std::string address = "127.0.0.1";
    std::int64_t port = 8001;
    std::int64_t max_message_bytes = 33554432;
    std::int64_t max_memory_bytes = 268435456;
    std::int64_t max_calls_per_connection = 1024;
    std::int64_t write_timeout_seconds = 60;
    std::int64_t keepalive_seconds = 60;
  } grpc;

  struct Tls {
    std::string certificate;
    std::string key;
    std::string client_ca;
  } tls;

  struct Security {
    std::string key_file;
    std::string api_keys;
    std::int64_t requests_per_minute = 0;
    std::int64_t tokens_per_minute = 0;
    std::int64_t concurrent_requests = 0;
    bool metrics_need_key = false;
  } security;

  struct KvEvents {
    std::string endpoint;
    std::string replay_endpoint;
    std::string topic = "kv-events";
    std::int64_t buffer_batches = 10000;
  } kv_events;

  struct Log {
    std::string level = "info";
    std::string format = "text";
    std::string file;
  } log;

  struct Server {
    std::int64_t drain_seconds = 30;
    std::int64_t tokenizer_threads = 1;
    std::int64_t max_queued_bytes = 268435456;
    std::string port_file;
    bool allow_insecure_remote = false;
  } server;
};

/// A key and its value as the command line or the environment gives them.
struct ConfigOverride {
  std::string key;  ///< "http.port"
  std::string value;
  /// As the user wrote the key, "MOBIUS_HTTP_PORT"; empty: "--" and the key.
  std::string written{};
};

/// Reads a config file over `config`. Returns every error, one line each, naming file, key, value
/// and limit; `config` is unusable unless there are none.
std::vector<std::string> load_config_file(ServerConfig& config, const std::filesystem::path& file);

/// The same from text; `name` stands for the file in messages.
std::vector<std::string> apply_config_json(ServerConfig& config, std::string_view text,
                                           std::string_view name);

/// Applies overrides in order, the last of a key wins. Errors name the option or variable as the
/// user wrote it.
std::vector<std::string> apply_overrides(ServerConfig& config,
                                         const std::vector<ConfigOverride>& overrides);

/// What no single key can tell: required keys, values that contradict each other.
std::vector<std::string> check_config(const ServerConfig& config);

/// What an operator should know of a valid configuration that lets other machines in; one line
/// each.
std::vector<std::string> config_warnings(const ServerConfig& config);

/// The parts of a list that is separated by commas, without spaces around them; none of "".
std::vector<std::string> split_list(std::string_view text);

/// "127.0.0.1:8000", "[::1]:8000"
std::string authority(const std::string& address, std::int64_t port);

/// The server's default attention. `config` must have passed check_config.
AttentionSettings attention_settings(const ServerConfig& config);

}  // namespace mobius
