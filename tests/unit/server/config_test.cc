#include "server/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <sstream>

#include "server/config/environment.h"
#include "server/config/schema.h"
#include "tests/scratch_folder.h"

namespace mobius {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Config, ReadsEverySection) {
  ServerConfig config;
  EXPECT_THAT(apply_config_json(config, R"({
    "model": {"path": "m", "name": "n", "dtype": "bf16", "quantization": "fp8",
              "max_context": 4096},
    "kv": {"dtype": "fp8", "page_tokens": 64, "bytes": 1048576},
    "attention": {"prefill": {"mode": "moba", "block": 256, "top_k": 4},
                  "decode": {"mode": "full"}, "full_attention_last_layers": 3},
    "engine": {"max_running": 2, "max_waiting": 0, "step_tokens": 128, "threads": 1},
    "http": {"address": "::1", "port": 0},
    "grpc": {"port": 9, "max_message_bytes": 2048},
    "log": {"level": "debug", "format": "json", "file": "f"},
    "server": {"drain_seconds": 5, "allow_insecure_remote": true}
  })",
                                "c.json"),
              IsEmpty());
  EXPECT_EQ(config.model.path, "m");
  EXPECT_EQ(config.model.dtype, "bf16");
  EXPECT_EQ(config.model.quantization, "fp8");
  EXPECT_EQ(config.kv.dtype, "fp8");
  EXPECT_EQ(config.kv.bytes, 1048576);
  EXPECT_EQ(config.engine.max_waiting, 0);
  EXPECT_EQ(config.http.address, "::1");
  EXPECT_EQ(config.log.format, "json");
  EXPECT_TRUE(config.server.allow_insecure_remote);
  EXPECT_THAT(check_config(config), IsEmpty());
  const AttentionSettings attention = attention_settings(config);
  EXPECT_EQ(attention.prefill, AttentionPolicy::moba(256, 4));
  EXPECT_EQ(attention.decode.mode, AttentionMode::full);
  EXPECT_EQ(attention.full_attention_last_layers, 3);
}

struct BadConfig {
  const char* text;
  const char* error;
};

class BadConfigs : public testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigs, GiveOneExactLine) {
  ServerConfig config;
  EXPECT_THAT(apply_config_json(config, GetParam().text, "c.json"), ElementsAre(GetParam().error));
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadConfigs,
    testing::Values(
        BadConfig{R"({"http": {"port": 65536}})",
                  "c.json: http.port: is 65536; must be 0 to 65535"},
        BadConfig{R"({"http": {"port": -1}})", "c.json: http.port: is -1; must be 0 to 65535"},
        BadConfig{R"({"http": {"port": 18446744073709551615}})",
                  "c.json: http.port: is 18446744073709551615; must be 0 to 65535"},
        BadConfig{R"({"http": {"port": 80.5}})",
                  "c.json: http.port: is a number (80.5); must be an integer, 0 to 65535"},
        BadConfig{R"({"http": {"port": "80"}})",
                  "c.json: http.port: is a string (\"80\"); must be an integer, 0 to 65535"},
        BadConfig{R"({"http": {"port": null}})",
                  "c.json: http.port: is null; must be an integer, 0 to 65535"},
        BadConfig{R"({"http": {"port": [80]}})",
                  "c.json: http.port: is an array; must be an integer, 0 to 65535"},
        BadConfig{R"({"http": {"prot": 80}})",
                  "c.json: http.prot: unknown key; did you mean \"http.port\"?"},
        BadConfig{R"({"completely_unrelated_thing": 80})",
                  "c.json: completely_unrelated_thing: unknown key"},
        BadConfig{R"({"http.port": 80})",
                  "c.json: http.port: unknown key; write sections as objects, "
                  "{\"http\": {\"port\": ...}}"},
        BadConfig{R"({"kv": {"dtype": "int8"}})",
                  "c.json: kv.dtype: is \"int8\"; must be one of auto, fp8"},
        BadConfig{R"({"kv": {"page_tokens": 100}})",
                  "c.json: kv.page_tokens: is 100; must be 16 to 4096 tokens, a multiple of 16"},
        BadConfig{R"({"kv": {"page_tokens": 8192}})",
                  "c.json: kv.page_tokens: is 8192; must be 16 to 4096 tokens, a multiple of 16"},
        BadConfig{R"({"http": 80})", "c.json: http: is an integer; must be an object"},
        BadConfig{R"({"model": {"dtype": "f64"}})",
                  "c.json: model.dtype: is \"f64\"; must be one of auto, f32, bf16"},
        BadConfig{R"({"model": {"quantization": "int4"}})",
                  "c.json: model.quantization: is \"int4\"; must be one of none, fp8"},
        BadConfig{R"({"model": {"path": 1}})",
                  "c.json: model.path: is an integer (1); must be a string, any text"},
        BadConfig{R"({"server": {"allow_insecure_remote": 1}})",
                  "c.json: server.allow_insecure_remote: is an integer (1); must be a boolean, "
                  "true, false"},
        BadConfig{R"({"attention": {"prefill": {"mode": "sparse"}}})",
                  "c.json: attention.prefill.mode: is \"sparse\"; must be one of full, moba"},
        BadConfig{R"({"attention": {"prefil": {}}})",
                  "c.json: attention.prefil: unknown key; did you mean \"attention.prefill\"?"},
        BadConfig{R"({"kv": {"bytes": 1, "bytes": 2}})",
                  "c.json: not valid JSON: duplicate key \"bytes\""},
        BadConfig{R"([])", "c.json: is an array; must be an object"},
        BadConfig{"",
                  "c.json: not valid JSON: line 1, column 1: syntax error while parsing value "
                  "- unexpected end of input; expected '[', '{', or a literal"}));

TEST(Config, ReportsEveryError) {
  ServerConfig config;
  EXPECT_EQ(apply_config_json(config, R"({"http": {"port": -1, "x": 1}, "y": 2})", "c").size(), 3U);
}

TEST(Config, OverridesWinAndAreChecked) {
  ServerConfig config;
  EXPECT_THAT(apply_overrides(config, {{"http.port", "1"},
                                       {"http.port", "2"},
                                       {"server.allow_insecure_remote", "true"},
                                       {"model.name", "x y"}}),
              IsEmpty());
  EXPECT_EQ(config.http.port, 2);
  EXPECT_TRUE(config.server.allow_insecure_remote);
  EXPECT_EQ(config.model.name, "x y");
  EXPECT_THAT(apply_overrides(config, {{"http.port", "80a"},
                                       {"http.port", "70000"},
                                       {"http.port", ""},
                                       {"server.allow_insecure_remote", "yes"},
                                       {"log.level", "loud"},
                                       {"htp.port", "1"}}),
              ElementsAre("--http.port: is \"80a\"; must be an integer, 0 to 65535",
                          "--http.port: is 70000; must be 0 to 65535",
                          "--http.port: is \"\"; must be an integer, 0 to 65535",
                          "--server.allow_insecure_remote: is \"yes\"; must be true or false",
                          "--log.level: is \"loud\"; must be one of trace, debug, info, warn, "
                          "error, off",
                          "--htp.port: unknown key; did you mean \"http.port\"?"));
}

TEST(Config, EveryKeyCanBeSetFromTextAndFromJson) {
  for (const ConfigKey& key : config_schema()) {
    ServerConfig defaults;
    std::string value = config_value_text(defaults, key);
    ServerConfig from_json;
    // "a.b.c" and 5 make {"a": {"b": {"c": 5}}}.
    std::string json = value;
    std::string path(key.key);
    while (!path.empty()) {
      const std::size_t dot = path.rfind('.');
      const std::string name = dot == std::string::npos ? path : path.substr(dot + 1);
      json = "{\"" + name + "\": " + json + "}";
      path = dot == std::string::npos ? "" : path.substr(0, dot);
    }
    EXPECT_THAT(apply_config_json(from_json, json, "c"), IsEmpty()) << json;
    if (value.front() == '"') value = value.substr(1, value.size() - 2);
    ServerConfig from_text;
    const ConfigOverride override{std::string(key.key), value, environment_name(key.key)};
    EXPECT_THAT(apply_overrides(from_text, {override}), IsEmpty()) << key.key;
  }
}

TEST(Config, SecretsAreNeitherTakenFromTheCommandLineNorShown) {
  ServerConfig config;
  EXPECT_THAT(apply_overrides(config, {{"security.api_keys", "mk-0123456789abcdef"}}),
              ElementsAre("--security.api_keys: other users can read command lines; set "
                          "MOBIUS_SECURITY_API_KEYS"));
  EXPECT_EQ(config.security.api_keys, "");
  EXPECT_THAT(apply_config_json(config, R"({"security": {"api_keys": 1234567890123456}})", "c"),
              ElementsAre("c: security.api_keys: is an integer; must be a string, any text"));
  EXPECT_THAT(apply_overrides(config, {{"security.api_keys", "k", "MOBIUS_SECURITY_API_KEYS"}}),
              IsEmpty());
  EXPECT_EQ(config.security.api_keys, "k");
}

TEST(Config, ChecksWhatNoSingleKeyCanTell) {
  ServerConfig config;
  EXPECT_THAT(check_config(config),
              ElementsAre("model.path: is not set; must be a checkpoint folder"));
  config.model.path = "m";
  EXPECT_THAT(check_config(config), IsEmpty());

  config.attention.prefill = {.mode = "moba", .block = 200, .top_k = 2};
  EXPECT_THAT(check_config(config),
              ElementsAre("attention.prefill.block: is 200; must be a multiple of kv.page_tokens "
                          "(128)"));
  // Not only where it is in use: a request may ask for MoBA with the server's block.
  config.attention.prefill.mode = "full";
  EXPECT_THAT(check_config(config),
              ElementsAre("attention.prefill.block: is 200; must be a multiple of kv.page_tokens "
                          "(128)"));
  config.attention.prefill = {};

  config.server.max_queued_bytes = config.http.max_body_bytes - 1;
  config.grpc.max_memory_bytes = std::int64_t{1} << 24U;
  EXPECT_THAT(check_config(config),
              ElementsAre("server.max_queued_bytes: is 33554431; must be at least "
                          "http.max_body_bytes (33554432)",
                          "server.max_queued_bytes: is 33554431; must be at least "
                          "grpc.max_message_bytes (33554432)",
                          "grpc.max_memory_bytes: is 16777216; must be at least "
                          "grpc.max_message_bytes (33554432)"));
  config.server = {};
  config.grpc = {};

  config.http.address = "localhost";
  EXPECT_THAT(check_config(config),
              ElementsAre("http.address: is \"localhost\"; must be an IPv4 or IPv6 address"));
  for (const char* remote : {"0.0.0.0", "::", "10.0.0.1"}) {
    config.http.address = remote;
    config.server.allow_insecure_remote = false;
    EXPECT_THAT(check_config(config), ElementsAre(HasSubstr("set server.allow_insecure_remote")));
    config.server.allow_insecure_remote = true;
    EXPECT_THAT(check_config(config), IsEmpty());
    config.server.allow_insecure_remote = false;
    config.security.key_file = "keys";
    EXPECT_THAT(check_config(config), IsEmpty());
    config.security.key_file = "";
    config.security.api_keys = "mk-0123456789abcdef";
    EXPECT_THAT(check_config(config), IsEmpty());
    config.security = {};
  }
  config.http.address = "127.0.0.2";
  config.server.allow_insecure_remote = false;
  EXPECT_THAT(check_config(config), IsEmpty());

  config.grpc.port = config.http.port;
  EXPECT_THAT(check_config(config), ElementsAre("grpc.port: is 8000; must differ from http.port"));
}

TEST(Config, ChecksOriginsAndTls) {
  ServerConfig config;
  config.model.path = "m";
  for (const char* good : {"", "*", "https://a.example", "http://localhost:3000, app://x"}) {
    config.http.cors_origins = good;
    EXPECT_THAT(check_config(config), IsEmpty()) << good;
  }
  for (const char* bad : {"a.example", "https://", "https://a.example/", "https://A.example",
                          "https://*.example", "*, https://a.example", ",", "https://a b"}) {
    config.http.cors_origins = bad;
    EXPECT_THAT(check_config(config), Contains(HasSubstr("must be an origin"))) << bad;
  }
  config.http.cors_origins = "";

  config.tls.certificate = "c";
  EXPECT_THAT(check_config(config), ElementsAre("tls.key: is not set; tls.certificate needs it"));
  config.tls = {};
  config.tls.client_ca = "a";
  EXPECT_THAT(check_config(config),
              ElementsAre("tls.certificate: is not set; tls.client_ca needs it"));
  config.tls.certificate = "c";
  config.tls.key = "k";
  config.http.address = "0.0.0.0";
  EXPECT_THAT(check_config(config), IsEmpty()) << "clients are known by their certificates";
}

TEST(Config, WarnsOfWhatOthersCanReach) {
  ServerConfig config;
  EXPECT_THAT(config_warnings(config), IsEmpty());
  config.grpc.address = "0.0.0.0";
  EXPECT_THAT(config_warnings(config),
              ElementsAre(HasSubstr("need no key"), HasSubstr("nothing is encrypted")));
  config.security.key_file = "k";
  EXPECT_THAT(config_warnings(config), ElementsAre(HasSubstr("nothing is encrypted")));
  config.tls.certificate = "c";
  EXPECT_THAT(config_warnings(config), IsEmpty());
  config.security = {};
  EXPECT_THAT(config_warnings(config), ElementsAre(HasSubstr("need no key")));
}

TEST(Config, MissingFileIsOneLine) {
  ServerConfig config;
  EXPECT_THAT(load_config_file(config, "/nonexistent/c.json"),
              ElementsAre("/nonexistent/c.json: cannot be read: No such file or directory"));
  EXPECT_THAT(load_config_file(config, "/tmp"),
              ElementsAre("/tmp: cannot be read: is a directory"));
}

TEST(Config, AuthoritiesBracketColons) {
  EXPECT_EQ(authority("127.0.0.1", 8000), "127.0.0.1:8000");
  EXPECT_EQ(authority("::1", 0), "[::1]:0");
}

TEST(Schema, IsSoundAndDocumented) {
  std::set<std::string_view> keys;
  ServerConfig defaults;
  const std::string terminal = config_docs_terminal();
  for (const ConfigKey& key : config_schema()) {
    EXPECT_TRUE(keys.insert(key.key).second) << key.key;
    EXPECT_TRUE(key.doc.ends_with(".")) << key.key;
    EXPECT_EQ(find_config_key(key.key), &key);
    EXPECT_THAT(terminal, HasSubstr("--" + std::string(key.key) + " "));
  }
}

TEST(Schema, TableInConfigsReadmeIsCurrent) {
  const std::string readme =
      read_file(std::filesystem::path(MOBIUS_SOURCE_DIR) / "configs" / "README.md");
  EXPECT_THAT(readme, HasSubstr(config_docs_markdown()))
      << "run: mobius --print-config-docs, and put the table into configs/README.md";
}

TEST(Configs, AllFilesAreValid) {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(MOBIUS_SOURCE_DIR) / "configs")) {
    if (entry.path().extension() != ".json") continue;
    ++files;
    ServerConfig config;
    EXPECT_THAT(load_config_file(config, entry.path()), IsEmpty());
    EXPECT_THAT(check_config(config), IsEmpty());
  }
  EXPECT_GT(files, 0);
}

TEST(Config, KvEventsStayOnTheMachineUnlessTold) {
  ServerConfig config;
  config.model.path = "model";
  for (const char* endpoint :
       {"tcp://127.0.0.1:5557", "tcp://[::1]:5557", "tcp://localhost:*", "ipc:///run/mobius/kv"}) {
    config.kv_events.endpoint = endpoint;
    EXPECT_THAT(check_config(config), IsEmpty()) << endpoint;
  }
  for (const char* endpoint : {"tcp://*:5557", "tcp://0.0.0.0:5557", "tcp://eth0:5557"}) {
    config.kv_events.endpoint = endpoint;
    EXPECT_THAT(
        check_config(config),
        ElementsAre(std::string("kv_events.endpoint: ") + endpoint +
                    " can be reached from other machines, and whoever reaches it reads the "
                    "tokens of prompts; use 127.0.0.1, or set server.allow_insecure_remote"));
  }
  config.server.allow_insecure_remote = true;
  EXPECT_THAT(check_config(config), IsEmpty());
  for (const char* endpoint :
       {"5557", "udp://127.0.0.1:1", "tcp://", "tcp://127.0.0.1", "tcp://a:"}) {
    config.kv_events.endpoint = endpoint;
    EXPECT_THAT(check_config(config),
                ElementsAre(std::string("kv_events.endpoint: is \"") + endpoint +
                            "\"; must be tcp://ADDRESS:PORT or ipc://PATH"));
  }
  for (const std::string port : {"65536", "99999", "-1", "1x", "99999999999999999999"}) {
    config.kv_events.endpoint = "tcp://127.0.0.1:" + port;
    EXPECT_THAT(check_config(config), ElementsAre("kv_events.endpoint: has the port \"" + port +
                                                  "\"; must be from 0 to 65535"));
  }
  for (const char* endpoint : {"tcp://127.0.0.1:0", "tcp://127.0.0.1:*", "tcp://[::1]:65535"}) {
    config.kv_events.endpoint = endpoint;
    EXPECT_THAT(check_config(config), IsEmpty());
  }
}

TEST(Config, KvEventsNeedACacheAndReplaysNeedEvents) {
  ServerConfig config;
  config.model.path = "model";
  config.kv_events.replay_endpoint = "tcp://127.0.0.1:5558";
  EXPECT_THAT(check_config(config),
              ElementsAre("kv_events.endpoint: is not set; kv_events.replay_endpoint needs it"));
  config.kv_events.endpoint = "tcp://127.0.0.1:5557";
  config.kv.prefix_cache = false;
  EXPECT_THAT(check_config(config),
              ElementsAre("kv.prefix_cache: is false; kv_events.endpoint needs it"));
}

}  // namespace
}  // namespace mobius
