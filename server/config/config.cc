#include "server/config/config.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "server/config/environment.h"
#include "server/config/schema.h"
#include "server/json.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

/// Is `path` the beginning of some key, i.e. a section?
bool is_section(std::string_view path) {
  for (const ConfigKey& key : config_schema()) {
    if (key.key.size() > path.size() && key.key.starts_with(path) && key.key[path.size()] == '.') {
      return true;
    }
  }
  return false;
}

std::string unknown_key(std::string_view path) {
  std::string text = "unknown key";
  const std::string_view nearest = nearest_config_key(path);
  if (!nearest.empty()) text.append("; did you mean \"").append(nearest).append("\"?");
  return text;
}

std::string apply_json_value(ServerConfig& config, const ConfigKey& key, const Json& value) {
  switch (key.field.index()) {
    case 0:
      if (value.is_boolean()) return set_config_value(config, key, value.get<bool>());
      break;
    case 1:
      if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{INT64_MAX}) {
        return "is " + value.dump() + "; must be " + config_range_text(key);
      }
      if (value.is_number_integer()) {
        return set_config_value(config, key, value.get<std::int64_t>());
      }
      break;
    default:
      if (value.is_string()) return set_config_value(config, key, value.get<std::string>());
      break;
  }
  const bool is_compound = value.is_object() || value.is_array() || value.is_null();
  const std::string shown = is_compound || key.secret ? std::string() : " (" + brief(value) + ")";
  return "is " + std::string(type_name(value)) + shown + "; must be " +
         (key.field.index() == 1 ? "an " : "a ") + std::string(config_type_name(key)) + ", " +
         config_range_text(key);
}

void apply_object(ServerConfig& config, const Json& object, const std::string& prefix,
                  std::string_view name, std::vector<std::string>& errors) {
  for (const auto& [member, value] : object.items()) {
    const std::string path = prefix + member;
    std::string problem;
    if (member.find('.') != std::string::npos && find_config_key(path) != nullptr) {
      // One spelling only, or a key could be set twice.
      problem = R"(unknown key; write sections as objects, {"http": {"port": ...}})";
    } else if (const ConfigKey* key = find_config_key(path)) {
      problem = apply_json_value(config, *key, value);
    } else if (!is_section(path)) {
      problem = unknown_key(path);
    } else if (!value.is_object()) {
      problem = "is " + std::string(type_name(value)) + "; must be an object";
    } else {
      apply_object(config, value, path + '.', name, errors);
    }
    if (!problem.empty()) {
      errors.push_back(std::string(name) + ": " + brief_text(path) + ": " + problem);
    }
  }
}

std::string apply_text_value(ServerConfig& config, const ConfigKey& key, const std::string& text) {
  switch (key.field.index()) {
    case 0:
      if (text == "true") return set_config_value(config, key, true);
      if (text == "false") return set_config_value(config, key, false);
      return "is \"" + brief_text(text) + "\"; must be true or false";
    case 1: {
      std::int64_t number = 0;
      const char* end = text.data() + text.size();
      const auto [rest, error] = std::from_chars(text.data(), end, number);
      if (error != std::errc() || rest != end) {
        return "is \"" + brief_text(text) + "\"; must be an integer, " + config_range_text(key);
      }
      return set_config_value(config, key, number);
    }
    default: return set_config_value(config, key, text);
  }
}

bool is_address(const std::string& text) {
  in6_addr out{};
  return inet_pton(AF_INET, text.c_str(), &out) == 1 ||
         inet_pton(AF_INET6, text.c_str(), &out) == 1;
}

bool is_loopback(const std::string& address) {
  return address.starts_with("127.") || address == "::1";
}

/// Does a client have to show that it may use the server?
bool knows_clients(const ServerConfig& config) {
  return !config.security.key_file.empty() || !config.security.api_keys.empty() ||
         !config.tls.client_ca.empty();
}

void check_tls(const ServerConfig::Tls& tls, std::vector<std::string>& errors) {
  if (tls.certificate.empty() != tls.key.empty()) {
    errors.push_back(tls.key.empty() ? "tls.key: is not set; tls.certificate needs it"
                                     : "tls.certificate: is not set; tls.key needs it");
  } else if (tls.certificate.empty() && !tls.client_ca.empty()) {
    errors.emplace_back("tls.certificate: is not set; tls.client_ca needs it");
  }
}

void check_address(const ServerConfig& config, std::string_view key, const std::string& address,
                   std::vector<std::string>& errors) {
  if (!is_address(address)) {
    errors.push_back(std::string(key) + ": is \"" + brief_text(address) +
                     "\"; must be an IPv4 or IPv6 address");
  } else if (!is_loopback(address) && !knows_clients(config) &&
             !config.server.allow_insecure_remote) {
    errors.push_back(std::string(key) + ": " + address +
                     " can be reached from other machines, and requests need no key; set "
                     "security.key_file, use 127.0.0.1, or set server.allow_insecure_remote");
  }
}

/// A ZeroMQ address to bind. Keys do not protect it, so they do not open it to others either.
void check_endpoint(const ServerConfig& config, std::string_view key, const std::string& endpoint,
                    std::vector<std::string>& errors) {
  constexpr std::string_view kTcp = "tcp://";
  if (endpoint.empty() || endpoint.starts_with("ipc://")) return;
  const std::size_t colon = endpoint.rfind(':');
  if (!endpoint.starts_with(kTcp) || colon <= kTcp.size() || colon + 1 == endpoint.size()) {
    errors.push_back(std::string(key) + ": is \"" + brief_text(endpoint) +
                     "\"; must be tcp://ADDRESS:PORT or ipc://PATH");
    return;
  }
  // ZeroMQ takes greater numbers for another port.
  const std::string port = endpoint.substr(colon + 1);
  int number = -1;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  const bool whole = error == std::errc{} && end == port.data() + port.size();
  if (port != "*" && (!whole || number < 0 || number > 65535)) {
    errors.push_back(std::string(key) + ": has the port \"" + brief_text(port) +
                     "\"; must be from 0 to 65535");
    return;
  }
  std::string address = endpoint.substr(kTcp.size(), colon - kTcp.size());
  if (address.starts_with('[') && address.ends_with(']')) {
    address = address.substr(1, address.size() - 2);
  }
  if (address == "localhost" || is_loopback(address) || config.server.allow_insecure_remote) return;
  errors.push_back(std::string(key) + ": " + brief_text(endpoint) +
                   " can be reached from other machines, and whoever reaches it reads the tokens "
                   "of prompts; use 127.0.0.1, or set server.allow_insecure_remote");
}

void check_kv_events(const ServerConfig& config, std::vector<std::string>& errors) {
  const ServerConfig::KvEvents& events = config.kv_events;
  check_endpoint(config, "kv_events.endpoint", events.endpoint, errors);
  check_endpoint(config, "kv_events.replay_endpoint", events.replay_endpoint, errors);
  if (events.endpoint.empty() && !events.replay_endpoint.empty()) {
    errors.emplace_back("kv_events.endpoint: is not set; kv_events.replay_endpoint needs it");
  }
  if (!events.endpoint.empty() && !config.kv.prefix_cache) {
    errors.emplace_back("kv.prefix_cache: is false; kv_events.endpoint needs it");
  }
}

/// "https://chat.example.org:8443", as browsers write it, or "*" alone.
void check_origins(const std::string& text, std::vector<std::string>& errors) {
  const std::vector<std::string> origins = split_list(text);
  if (origins == std::vector<std::string>{"*"}) return;
  for (const std::string& origin : origins) {
    const std::size_t scheme = origin.find("://");
    const bool valid = scheme != std::string::npos && scheme > 0 && scheme + 3 < origin.size() &&
                       origin.find_first_of("/*?# ", scheme + 3) == std::string::npos &&
                       std::all_of(origin.begin(), origin.end(), [](char c) {
                         return c > 0x20 && c < 0x7F && !(c >= 'A' && c <= 'Z');
                       });
    if (valid) continue;
    errors.push_back("http.cors_origins: \"" + brief_text(origin) +
                     "\" must be an origin in lower case, such as https://chat.example.org, "
                     "without a path, or * alone");
  }
}

void check_policy(const ServerConfig& config, std::string_view key,
                  const ServerConfig::Policy& policy, std::vector<std::string>& errors) {
  // In any mode: a request may ask for MoBA and leave the block to us.
  if (policy.block % config.kv.page_tokens != 0) {
    errors.push_back(std::string(key) + ".block: is " + std::to_string(policy.block) +
                     "; must be a multiple of kv.page_tokens (" +
                     std::to_string(config.kv.page_tokens) + ")");
  }
}

/// A request that is allowed must fit where nothing else is.
void check_fits(std::string_view key, std::int64_t room, std::string_view request_key,
                std::int64_t request, std::vector<std::string>& errors) {
  if (request <= room) return;
  errors.push_back(std::string(key) + ": is " + std::to_string(room) + "; must be at least " +
                   std::string(request_key) + " (" + std::to_string(request) + ")");
}

AttentionPolicy to_policy(const ServerConfig::Policy& policy) {
  // Block and top-k stay in a policy of mode full, so that a request which only asks for MoBA gets
  // the configured ones.
  return {policy.mode == "moba" ? AttentionMode::moba : AttentionMode::full,
          static_cast<std::int32_t>(policy.block), static_cast<std::int32_t>(policy.top_k)};
}

}  // namespace

std::vector<std::string> load_config_file(ServerConfig& config, const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  if (stream) text << stream.rdbuf();
  const int error = errno;
  std::error_code ignored;  // a path that leads nowhere is no directory
  const bool directory = std::filesystem::is_directory(file, ignored);
  if (!stream || directory) {
    return {file.string() +
            ": cannot be read: " + (directory ? "is a directory" : std::strerror(error))};
  }
  return apply_config_json(config, text.str(), file.string());
}

std::vector<std::string> apply_config_json(ServerConfig& config, std::string_view text,
                                           std::string_view name) {
  Json root;
  std::string error;
  if (!parse_json(text, {.depth = 8, .values = 10000}, root, error)) {
    return {std::string(name) + ": not valid JSON: " + error};
  }
  if (!root.is_object()) {
    return {std::string(name) + ": is " + std::string(type_name(root)) + "; must be an object"};
  }
  std::vector<std::string> errors;
  apply_object(config, root, "", name, errors);
  return errors;
}

std::vector<std::string> apply_overrides(ServerConfig& config,
                                         const std::vector<ConfigOverride>& overrides) {
  std::vector<std::string> errors;
  for (const auto& [name, value, written] : overrides) {
    const ConfigKey* key = find_config_key(name);
    std::string problem;
    if (key == nullptr) {
      problem = unknown_key(name);
    } else if (key->secret && written.empty()) {
      problem = "other users can read command lines; set " + environment_name(key->key);
    } else {
      problem = apply_text_value(config, *key, value);
    }
    if (problem.empty()) continue;
    errors.push_back((written.empty() ? "--" + brief_text(name) : written) + ": " + problem);
  }
  return errors;
}

std::vector<std::string> check_config(const ServerConfig& config) {
  std::vector<std::string> errors;
  if (config.model.path.empty()) {
    errors.emplace_back("model.path: is not set; must be a checkpoint folder");
  }
  check_policy(config, "attention.prefill", config.attention.prefill, errors);
  check_policy(config, "attention.decode", config.attention.decode, errors);
  check_address(config, "http.address", config.http.address, errors);
  check_address(config, "grpc.address", config.grpc.address, errors);
  check_tls(config.tls, errors);
  check_kv_events(config, errors);
  check_origins(config.http.cors_origins, errors);
  if (config.http.port != 0 && config.http.port == config.grpc.port) {
    errors.push_back("grpc.port: is " + std::to_string(config.grpc.port) +
                     "; must differ from http.port");
  }
  const std::int64_t queue = config.server.max_queued_bytes;
  const std::int64_t message = config.grpc.max_message_bytes;
  check_fits("server.max_queued_bytes", queue, "http.max_body_bytes", config.http.max_body_bytes,
             errors);
  check_fits("server.max_queued_bytes", queue, "grpc.max_message_bytes", message, errors);
  check_fits("grpc.max_memory_bytes", config.grpc.max_memory_bytes, "grpc.max_message_bytes",
             message, errors);
  return errors;
}

std::vector<std::string> config_warnings(const ServerConfig& config) {
  if (is_loopback(config.http.address) && is_loopback(config.grpc.address)) return {};
  std::vector<std::string> warnings;
  if (!knows_clients(config)) {
    warnings.emplace_back(
        "other machines can connect, and need no key: who reaches the ports may use all of it "
        "(security.key_file)");
  }
  if (config.tls.certificate.empty()) {
    warnings.emplace_back(
        "other machines can connect, and nothing is encrypted, keys included (tls.certificate)");
  }
  return warnings;
}

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    std::string_view part = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    part.remove_prefix(std::min(part.find_first_not_of(' '), part.size()));
    part.remove_suffix(part.size() - (part.find_last_not_of(' ') + 1));
    parts.emplace_back(part);
  }
  return parts;
}

std::string authority(const std::string& address, std::int64_t port) {
  const bool is_v6 = address.find(':') != std::string::npos;
  return (is_v6 ? '[' + address + ']' : address) + ':' + std::to_string(port);
}

AttentionSettings attention_settings(const ServerConfig& config) {
  return {to_policy(config.attention.prefill), to_policy(config.attention.decode),
          static_cast<std::int32_t>(config.attention.full_attention_last_layers)};
}

}  // namespace mobius
