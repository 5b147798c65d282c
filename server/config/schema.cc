#include "server/config/schema.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

namespace mobius {
namespace {

constexpr std::int64_t kMaxInt32 = 2147483647;
constexpr std::int64_t kMaxBytes = std::int64_t{1} << 50;

// NOLINTBEGIN(bugprone-macro-parentheses): field names and designated values take none.
// A captureless lambda that names the field; `+` turns it into the function pointer.
#define MOBIUS_FIELD(type, path) (+[](ServerConfig& c) -> type& { return c.path; })

#define MOBIUS_MULTIPLE(name, lo, hi, factor, measure, text)                       \
  ConfigKey {                                                                      \
    .key = #name, .field = MOBIUS_FIELD(std::int64_t, name), .min = lo, .max = hi, \
    .multiple_of = factor, .choices = {}, .unit = measure, .doc = text             \
  }
#define MOBIUS_INT(name, lo, hi, measure, text) MOBIUS_MULTIPLE(name, lo, hi, 1, measure, text)
#define MOBIUS_TEXT(name, allowed, text)                                                          \
  ConfigKey {                                                                                     \
    .key = #name, .field = MOBIUS_FIELD(std::string, name), .min = 0, .max = 0, .multiple_of = 1, \
    .choices = allowed, .unit = {}, .doc = text                                                   \
  }
#define MOBIUS_SECRET(name, text)                                                                 \
  ConfigKey {                                                                                     \
    .key = #name, .field = MOBIUS_FIELD(std::string, name), .min = 0, .max = 0, .multiple_of = 1, \
    .choices = {}, .unit = {}, .doc = text, .secret = true                                        \
  }
#define MOBIUS_BOOL(name, text)                                                            \
  ConfigKey {                                                                              \
    .key = #name, .field = MOBIUS_FIELD(bool, name), .min = 0, .max = 0, .multiple_of = 1, \
    .choices = {}, .unit = {}, .doc = text                                                 \
  }
// NOLINTEND(bugprone-macro-parentheses)

constexpr ConfigKey reloaded(ConfigKey key) {
  key.reloads = true;
  return key;
}

const auto kSchema = std::to_array<ConfigKey>({
    MOBIUS_TEXT(model.path, "",
                "Checkpoint folder: config.json, *.safetensors, tokenizer.json. Relative to the "
                "working directory. Required."),
    MOBIUS_TEXT(model.name, "", "Name that clients use; empty: the folder's name."),
    MOBIUS_TEXT(
        model.dtype, "auto|f32|bf16",
        "Type of weights, activations and (kv.dtype) KV cache; auto: bf16 on a GPU, else as the "
        "checkpoint is stored, f32 for f16."),
    MOBIUS_TEXT(model.quantization, "none|fp8",
                "fp8: weights of products are quantised on load to e4m3 with a scale for each "
                "output, in half the memory of bf16; on a GPU alone."),
    MOBIUS_INT(
        model.max_context, 0, kMaxInt32, "tokens",
        "Longest prompt plus answer, refused if the KV cache cannot hold it; 0: as long as model "
        "and cache allow."),

    MOBIUS_TEXT(kv.dtype, "auto|fp8",
                "fp8: cached keys and values are quantised to e4m3 with a scale for each token and "
                "head, in half the memory of bf16; auto: they have the type of activations."),
    MOBIUS_MULTIPLE(kv.page_tokens, 16, 4096, 16, "tokens", "Tokens of a KV cache page."),
    MOBIUS_INT(kv.bytes, 0, kMaxBytes, "bytes",
               "Memory for KV pages; 0: room for two of the longest sequences, at most 80 % of the "
               "memory that weights and workspace leave."),
    MOBIUS_BOOL(kv.prefix_cache,
                "Reuse the KV pages of a common beginning of prompts; pages are kept until others "
                "need the room."),

    MOBIUS_TEXT(attention.prefill.mode, "full|moba", "Attention of prompt tokens."),
    MOBIUS_INT(attention.prefill.block, 1, kMaxInt32, "tokens",
               "Block size of MoBA prefill, a multiple of kv.page_tokens."),
    MOBIUS_INT(attention.prefill.top_k, 1, kMaxInt32, "blocks",
               "Blocks that a prompt token attends, its own included."),
    MOBIUS_TEXT(attention.decode.mode, "full|moba", "Attention of generated tokens."),
    MOBIUS_INT(attention.decode.block, 1, kMaxInt32, "tokens",
               "Block size of MoBA decode, a multiple of kv.page_tokens."),
    MOBIUS_INT(attention.decode.top_k, 1, kMaxInt32, "blocks",
               "Blocks that a generated token attends, its own included."),
    MOBIUS_INT(attention.full_attention_last_layers, 0, 1024, "layers",
               "The model's last layers that use full attention in any case."),

    MOBIUS_INT(engine.max_running, 1, 4096, "requests", "Requests that share a step."),
    MOBIUS_INT(engine.max_waiting, 0, 1000000, "requests",
               "Requests that may wait; more are refused (HTTP 429, RESOURCE_EXHAUSTED)."),
    MOBIUS_INT(engine.max_waiting_tokens, 0, kMaxInt32, "tokens",
               "Prompt tokens of the requests that wait, refused likewise where others wait "
               "already; 0: no limit."),
    MOBIUS_INT(engine.step_tokens, 1, 65536, "tokens",
               "Tokens of one step: running answers first, then chunks of prompts."),
    MOBIUS_INT(engine.itl_target_ms, 0, 60000, "milliseconds",
               "Time between the tokens of an answer that chunks of prompts beside it are sized "
               "for, from what steps take; 0: chunks fill steps up."),
    MOBIUS_TEXT(engine.backend, "auto|cpu|cuda",
                "What computes; auto: the GPU where build and machine have one, else the CPU."),
    MOBIUS_INT(engine.cuda_device, 0, 64, "", "Which GPU, where there are several."),
    MOBIUS_INT(engine.threads, 0, 1024, "threads",
               "Threads that compute on the CPU; 0: one for each core that the process may use."),

    MOBIUS_TEXT(http.address, "", "Address to listen on."),
    MOBIUS_INT(http.port, 0, 65535, "", "Port; 0: any free one, printed at start."),
    MOBIUS_INT(http.threads, 1, 256, "threads", "Threads of the HTTP front end."),
    MOBIUS_INT(http.max_connections, 1, 1000000, "connections",
               "Open connections; more are closed at once."),
    MOBIUS_INT(http.max_header_bytes, 1024, 61440, "bytes",
               "Header of a request; longer ones get 431."),
    MOBIUS_INT(http.max_body_bytes, 1024, std::int64_t{1} << 32, "bytes",
               "Body of a request; longer ones get 413."),
    MOBIUS_INT(http.header_timeout_seconds, 1, 86400, "seconds",
               "From a request's first byte to the end of its header."),
    MOBIUS_INT(http.body_timeout_seconds, 1, 86400, "seconds",
               "From the end of the header to the end of the body."),
    MOBIUS_INT(http.write_timeout_seconds, 1, 86400, "seconds",
               "For a client to take one piece of an answer."),
    MOBIUS_INT(http.idle_timeout_seconds, 1, 86400, "seconds",
               "Between the requests of a connection."),
    MOBIUS_INT(http.keepalive_comment_seconds, 1, 86400, "seconds",
               "Longest silence of an SSE stream before a comment line is sent."),
    MOBIUS_TEXT(http.cors_origins, "",
                "Origins whose pages may use the server from a browser, separated by commas "
                "(https://chat.example.org), or * for all. Empty: only our own page may."),

    MOBIUS_TEXT(grpc.address, "", "Address to listen on."),
    MOBIUS_INT(grpc.port, 0, 65535, "", "Port; 0: any free one, printed at start."),
    MOBIUS_INT(grpc.max_message_bytes, 1024, kMaxInt32, "bytes",
               "Request message; longer ones get RESOURCE_EXHAUSTED."),
    MOBIUS_INT(grpc.max_memory_bytes, std::int64_t{1} << 24U, kMaxBytes, "bytes",
               "What gRPC may use for connections and messages; past it, it reads no more."),
    MOBIUS_INT(grpc.max_calls_per_connection, 1, kMaxInt32, "calls",
               "Calls that one connection may have open; further ones wait at the client."),
    MOBIUS_INT(grpc.write_timeout_seconds, 1, 86400, "seconds",
               "For a client to take one message of an answer; then its call is cancelled."),
    MOBIUS_INT(grpc.keepalive_seconds, 1, 86400, "seconds",
               "Silence after which a client is asked for a sign of life."),

    MOBIUS_TEXT(tls.certificate, "",
                "File with the server's certificate and the chain towards its root, PEM. HTTP and "
                "gRPC speak TLS 1.2 or 1.3 then, and nothing else. Read again, with the other two, "
                "when it changes or on SIGHUP, for connections to come. Empty: no encryption."),
    MOBIUS_TEXT(tls.key, "", "File with the certificate's private key, PEM, without a password."),
    MOBIUS_TEXT(tls.client_ca, "",
                "File with the authorities, PEM, of which a client must have a certificate, for "
                "every connection; empty: clients need none."),

    MOBIUS_TEXT(security.key_file, "",
                "File of API keys, one a line: NAME KEY, and limits of its own; read again when it "
                "changes or on SIGHUP. Empty: none."),
    MOBIUS_SECRET(security.api_keys,
                  "More API keys, separated by commas. Meant for the environment; not taken from "
                  "the command line, which other users of the machine can read."),
    reloaded(MOBIUS_INT(
        security.requests_per_minute, 0, kMaxBytes, "requests",
        "Requests of one key (without keys: of all clients together), past which they are "
        "refused (HTTP 429, RESOURCE_EXHAUSTED); 0: no limit.")),
    reloaded(MOBIUS_INT(security.tokens_per_minute, 0, kMaxBytes, "tokens",
                        "Tokens of prompts and answers of one key, likewise.")),
    reloaded(MOBIUS_INT(security.concurrent_requests, 0, kMaxInt32, "requests",
                        "Requests of one key at a time, likewise.")),
    MOBIUS_BOOL(
        security.metrics_need_key,
        "Ask for a key at GET /metrics too. /health, /ready, the page and gRPC's health and "
        "reflection never need one."),

    MOBIUS_TEXT(
        kv_events.endpoint, "",
        "Where changes of the prefix cache are published over ZeroMQ, in vLLM's format, for "
        "routers that send a prompt where its beginning is cached: tcp://127.0.0.1:5557 or "
        "ipc:///run/mobius/kv. They hold the tokens of prompts and know no keys. Empty: "
        "nowhere."),
    MOBIUS_TEXT(kv_events.replay_endpoint, "",
                "Where subscribers that missed some ask for them again; empty: nowhere."),
    MOBIUS_TEXT(kv_events.topic, "", "Topic of the messages; empty: the empty one."),
    MOBIUS_INT(kv_events.buffer_batches, 1, 1000000, "messages",
               "Latest messages kept for those who ask again."),

    reloaded(MOBIUS_TEXT(log.level, "trace|debug|info|warn|error|off",
                         "Least important level that is written.")),
    MOBIUS_TEXT(log.format, "text|json", "One line of text or one JSON object for each entry."),
    MOBIUS_TEXT(log.file, "", "File to append to; empty: standard error."),

    reloaded(MOBIUS_INT(server.drain_seconds, 0, 86400, "seconds",
                        "How long running requests may go on after SIGTERM.")),
    MOBIUS_INT(server.tokenizer_threads, 1, 64, "threads",
               "Threads that turn prompts into tokens."),
    MOBIUS_INT(
        server.max_queued_bytes, 1024, kMaxBytes, "bytes",
        "Request bodies being read and prompts that wait to be tokenized, together; past it, "
        "requests are refused (HTTP 429, RESOURCE_EXHAUSTED)."),
    MOBIUS_TEXT(server.port_file, "",
                "File that gets the listening addresses as JSON once both ports accept; empty: "
                "none."),
    MOBIUS_BOOL(server.allow_insecure_remote,
                "Allow addresses other than loopback although requests need no key."),
});

#undef MOBIUS_FIELD
#undef MOBIUS_INT
#undef MOBIUS_MULTIPLE
#undef MOBIUS_TEXT
#undef MOBIUS_SECRET
#undef MOBIUS_BOOL

std::string doc_of(const ConfigKey& key) {
  std::string text(key.doc);
  if (key.reloads) text += " Read again when the file changes or on SIGHUP.";
  return text;
}

/// Edits (insert, delete, replace) from one string to the other.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({row[j - 1] + 1, above + 1, replaced});
      diagonal = above;
    }
  }
  return row[b.size()];
}

bool is_choice(std::string_view choices, std::string_view value) {
  while (true) {
    const std::size_t bar = choices.find('|');
    if (choices.substr(0, bar) == value) return true;
    if (bar == std::string_view::npos) return false;
    choices.remove_prefix(bar + 1);
  }
}

std::string spaced_choices(std::string_view choices) {
  std::string text;
  for (const char c : choices) {
    if (c == '|') {
      text += ", ";
    } else {
      text += c;
    }
  }
  return text;
}

}  // namespace

std::span<const ConfigKey> config_schema() {
  return kSchema;
}

const ConfigKey* find_config_key(std::string_view key) {
  const auto* found = std::find_if(kSchema.begin(), kSchema.end(),
                                   [key](const ConfigKey& entry) { return entry.key == key; });
  return found == kSchema.end() ? nullptr : found;
}

std::string_view nearest_config_key(std::string_view key) {
  std::string_view nearest;
  std::size_t best = std::max<std::size_t>(2, key.size() / 4) + 1;
  const auto consider = [&](std::string_view candidate) {
    const std::size_t distance = edit_distance(key, candidate);
    if (distance >= best) return;
    best = distance;
    nearest = candidate;
  };
  for (const ConfigKey& entry : kSchema) {
    consider(entry.key);
    for (std::size_t dot = entry.key.find('.'); dot != std::string_view::npos;
         dot = entry.key.find('.', dot + 1)) {
      consider(entry.key.substr(0, dot));
    }
  }
  return nearest;
}

std::string set_config_value(ServerConfig& config, const ConfigKey& key,
                             const std::variant<bool, std::int64_t, std::string>& value) {
  switch (key.field.index()) {
    case 0: std::get<0>(key.field)(config) = std::get<bool>(value); return {};
    case 1: {
      const std::int64_t number = std::get<std::int64_t>(value);
      if (number < key.min || number > key.max || number % key.multiple_of != 0) {
        return "is " + std::to_string(number) + "; must be " + config_range_text(key);
      }
      std::get<1>(key.field)(config) = number;
      return {};
    }
    default: {
      const std::string& text = std::get<std::string>(value);
      if (!key.choices.empty() && !is_choice(key.choices, text)) {
        return "is \"" + text + "\"; must be one of " + spaced_choices(key.choices);
      }
      std::get<2>(key.field)(config) = text;
      return {};
    }
  }
}

std::string config_value_text(const ServerConfig& config, const ConfigKey& key) {
  // The accessors hand out mutable references; reading goes through a copy.
  ServerConfig copy = config;
  switch (key.field.index()) {
    case 0: return std::get<0>(key.field)(copy) ? "true" : "false";
    case 1: return std::to_string(std::get<1>(key.field)(copy));
    default: return '"' + std::get<2>(key.field)(copy) + '"';
  }
}

std::string_view config_type_name(const ConfigKey& key) {
  switch (key.field.index()) {
    case 0: return "boolean";
    case 1: return "integer";
    default: return "string";
  }
}

std::string config_range_text(const ConfigKey& key) {
  switch (key.field.index()) {
    case 0: return "true, false";
    case 1: {
      std::string text = std::to_string(key.min) + " to " + std::to_string(key.max);
      if (!key.unit.empty()) text.append(" ").append(key.unit);
      if (key.multiple_of > 1) text += ", a multiple of " + std::to_string(key.multiple_of);
      return text;
    }
    default: return key.choices.empty() ? "any text" : spaced_choices(key.choices);
  }
}

std::string config_docs_markdown() {
  const ServerConfig defaults;
  std::string text = "| key | type | default | range | meaning |\n|---|---|---|---|---|\n";
  for (const ConfigKey& key : kSchema) {
    text.append("| `").append(key.key).append("` | ");
    text.append(config_type_name(key)).append(" | `");
    text.append(config_value_text(defaults, key)).append("` | ");
    text.append(config_range_text(key)).append(" | ");
    text.append(doc_of(key)).append(" |\n");
  }
  return text;
}

std::string config_docs_terminal() {
  const ServerConfig defaults;
  std::string text;
  for (const ConfigKey& key : kSchema) {
    text.append("  --").append(key.key).append(" ").append(config_type_name(key));
    text.append("  (default ").append(config_value_text(defaults, key)).append("; ");
    text.append(config_range_text(key)).append(")\n      ").append(doc_of(key)).append("\n");
  }
  return text;
}

}  // namespace mobius
