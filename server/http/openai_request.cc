#include "server/http/openai_request.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/http/json_fields.h"
#include "server/json.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

/// Members that change nothing about the answer here.
constexpr auto kIgnored = std::to_array<std::string_view>({
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "prediction",
});

/// Members that would change the answer: only the value that asks for nothing is taken.
struct Unsupported {
  std::string_view name;
  std::string_view neutral;  ///< JSON
};
constexpr auto kUnsupported = std::to_array<Unsupported>({
    {"suffix", "\"\""},
    {"modalities", R"(["text"])"},
    {"audio", "null"},
    {"moderation", "null"},
    {"functions", "null"},  // the names that tools and tool_choice once had
    {"function_call", "null"},
    {"reasoning_effort", "\"none\""},
    {"verbosity", "\"medium\""},
    {"web_search_options", "null"},
    {"grammar", "null"},
});

void read_common_members(JsonFields& fields) {
  for (const std::string_view name : kIgnored) fields.any(name);
  for (const Unsupported& member : kUnsupported) {
    const Json* value = fields.any(member.name);
    if (value == nullptr || *value == Json::parse(member.neutral)) continue;
    fields.fail(member.name, "is " + brief(*value) + "; this server supports only " +
                                 std::string(member.neutral));
  }
}

void read_policy(JsonFields& parent, std::string_view name, PolicyOverride& policy,
                 Status& status) {
  const Json* object = parent.object(name);
  if (object == nullptr) return;
  JsonFields fields(*object, parent.path(name), status);
  if (const auto mode = fields.string("mode")) {
    if (*mode == "full") {
      policy.mode = AttentionMode::full;
    } else if (*mode == "moba") {
      policy.mode = AttentionMode::moba;
    } else {
      fields.fail("mode", "is \"" + brief_text(*mode) + "\"; must be \"full\" or \"moba\"");
    }
  }
  policy.block = fields.integer("block");
  policy.top_k = fields.integer("top_k");
  fields.refuse_unread();
}

void read_extension(JsonFields& parent, GenerationOptions& options, Status& status) {
  const Json* object = parent.object("mobius");
  if (object == nullptr) return;
  JsonFields fields(*object, parent.path("mobius"), status);
  read_policy(fields, "prefill", options.attention.prefill, status);
  read_policy(fields, "decode", options.attention.decode, status);
  options.attention.full_attention_last_layers = fields.integer("full_attention_last_layers");
  options.progress = fields.boolean("progress").value_or(false);
  options.priority = fields.integer("priority");
  if (const auto timeout = fields.integer("timeout_ms")) {
    constexpr std::int64_t kMaxTimeout = std::int64_t{7} * 24 * 3600 * 1000;
    if (*timeout < 1 || *timeout > kMaxTimeout) {
      fields.fail("timeout_ms", "is " + std::to_string(*timeout) + "; must be 1 to " +
                                    std::to_string(kMaxTimeout));
    } else {
      options.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(*timeout);
    }
  }
  fields.refuse_unread();
}

/// The name that OpenAI wants for a schema; it reaches nobody here.
bool is_schema_name(const std::string& name) {
  return !name.empty() && name.size() <= 64 && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
}

void read_json_schema(JsonFields& parent, ResponseFormat& format, Status& status) {
  const Json* object = parent.object("json_schema");
  if (object == nullptr) {
    parent.fail("json_schema", "is missing");
    return;
  }
  JsonFields fields(*object, parent.path("json_schema"), status);
  const auto name = fields.string("name");
  if (!name.has_value()) {
    fields.fail("name", "is missing");
  } else if (!is_schema_name(*name)) {
    fields.fail("name", "is \"" + brief_text(*name) +
                            "\"; must be 1 to 64 letters, digits, underscores and dashes");
  }
  fields.string("description");
  fields.boolean("strict");  // a schema holds, strict or not
  if (const Json* schema = fields.any("schema")) {
    format.schema = schema->dump();
  } else {
    fields.fail("schema", "is missing");
  }
  fields.refuse_unread();
}

void read_response_format(JsonFields& parent, ResponseFormat& format, Status& status) {
  const Json* object = parent.object("response_format");
  if (object == nullptr) return;
  JsonFields fields(*object, "response_format", status);
  const std::string type = fields.string("type").value_or("");
  if (type == "json_schema") {
    format.kind = ResponseFormat::Kind::json_schema;
    read_json_schema(fields, format, status);
  } else if (type == "json_object") {
    format.kind = ResponseFormat::Kind::json_object;
  } else if (type != "text") {
    fields.fail("type", "is \"" + brief_text(type) +
                            "\"; must be \"text\", \"json_object\" or \"json_schema\"");
  }
  fields.refuse_unread();
}

void read_stop(JsonFields& fields, GenerationOptions& options) {
  const Json* stop = fields.any("stop");
  if (stop == nullptr) return;
  if (stop->is_string()) {
    options.stop.push_back(stop->get<std::string>());
    return;
  }
  if (!stop->is_array()) {
    fields.fail_type("stop", *stop, "a string or an array of strings");
    return;
  }
  for (std::size_t i = 0; i < stop->size(); ++i) {
    const Json& item = (*stop)[i];
    if (!item.is_string()) {
      fields.fail_type("stop[" + std::to_string(i) + "]", item, "a string");
      return;
    }
    options.stop.push_back(item.get<std::string>());
  }
}

void read_stop_token_ids(JsonFields& fields, GenerationOptions& options) {
  const Json* ids = fields.array("stop_token_ids");
  if (ids == nullptr) return;
  for (std::size_t i = 0; i < ids->size(); ++i) {
    const auto id = as_int64((*ids)[i]);
    if (!id.has_value()) {
      fields.fail_type("stop_token_ids[" + std::to_string(i) + "]", (*ids)[i], "an integer");
      return;
    }
    options.stop_token_ids.push_back(*id);
  }
}

void read_logit_bias(JsonFields& fields, GenerationOptions& options) {
  const Json* bias = fields.object("logit_bias");
  if (bias == nullptr) return;
  for (const auto& [name, value] : bias->get_ref<const Json::object_t&>()) {
    const std::string field = "logit_bias." + brief_text(name);
    std::int64_t id = 0;
    const char* end = name.data() + name.size();
    const auto [rest, error] = std::from_chars(name.data(), end, id);
    if (error != std::errc() || rest != end) {
      fields.fail(field, "is no token; keys must be token ids");
      return;
    }
    if (!value.is_number()) {
      fields.fail_type(field, value, "a number");
      return;
    }
    options.logit_bias.emplace_back(id, value.get<double>());
  }
}

void read_seed(JsonFields& fields, GenerationOptions& options) {
  const Json* seed = fields.any("seed");
  if (seed == nullptr) return;
  // Negative seeds are legal in this API; their bits count.
  if (seed->is_number_unsigned()) {
    options.seed = seed->get<std::uint64_t>();
  } else if (seed->is_number_integer()) {
    options.seed = static_cast<std::uint64_t>(seed->get<std::int64_t>());
  } else {
    fields.fail_type("seed", *seed, "an integer of at most 64 bits");
  }
}

void read_stream(JsonFields& fields, OpenAiRequest& request, Status& status) {
  request.stream = fields.boolean("stream").value_or(false);
  const Json* object = fields.object("stream_options");
  if (object == nullptr) return;
  if (!request.stream) {
    fields.fail("stream_options", "is set; it is allowed only with \"stream\": true");
    return;
  }
  JsonFields options(*object, "stream_options", status);
  request.include_usage = options.boolean("include_usage").value_or(false);
  options.boolean("include_obfuscation");
  options.refuse_unread();
}

/// What both endpoints share.
void read_options(JsonFields& fields, OpenAiRequest& request, Status& status) {
  GenerationOptions& options = request.options();
  options.temperature = fields.number("temperature");
  options.top_p = fields.number("top_p");
  options.top_k = fields.integer("top_k");
  options.min_p = fields.number("min_p");
  options.presence_penalty = fields.number("presence_penalty");
  options.frequency_penalty = fields.number("frequency_penalty");
  options.repetition_penalty = fields.number("repetition_penalty");
  options.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  options.max_tokens = fields.integer("max_tokens");
  options.n = fields.integer("n");
  options.user = fields.string("user").value_or("");
  read_seed(fields, options);
  read_stop(fields, options);
  read_response_format(fields, options.response_format, status);
  read_stop_token_ids(fields, options);
  read_logit_bias(fields, options);
  read_extension(fields, options, status);
  read_stream(fields, request, status);
  read_common_members(fields);
}

/// Chat: `logprobs` is a boolean and `top_logprobs` a count.
void read_chat_logprobs(JsonFields& fields, GenerationOptions& options) {
  const bool wanted = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs");
  if (top.has_value() && !wanted) {
    fields.fail("top_logprobs", "is set; it is allowed only with \"logprobs\": true");
  }
  if (wanted) options.top_logprobs = top.value_or(0);
}

/// The tokens of prompts[...].
std::optional<Prompt> read_tokens(JsonFields& fields, const std::string& name, const Json& list) {
  std::vector<std::int32_t> tokens;
  tokens.reserve(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto id = as_int64(list[i]);
    if (!id.has_value() || *id < 0 || *id > std::numeric_limits<std::int32_t>::max()) {
      fields.fail(name + "[" + std::to_string(i) + "]",
                  "is " + brief(list[i]) + "; must be a token id");
      return std::nullopt;
    }
    tokens.push_back(static_cast<std::int32_t>(*id));
  }
  return tokens;
}

/// A text, a list of tokens, or a list of either.
void read_prompt(JsonFields& fields, CompletionInput& input) {
  const Json* prompt = fields.any("prompt");
  if (prompt == nullptr) {
    fields.fail("prompt", "is missing");
  } else if (prompt->is_string()) {
    input.prompts.emplace_back(prompt->get<std::string>());
  } else if (!prompt->is_array() || prompt->empty()) {
    fields.fail("prompt",
                "is " + std::string(prompt->is_array() ? "an empty array" : type_name(*prompt)) +
                    "; must be a string, an array of tokens, or an array of such");
  } else if (prompt->front().is_string() || prompt->front().is_array()) {
    for (std::size_t i = 0; i < prompt->size() && fields.ok(); ++i) {
      const Json& item = (*prompt)[i];
      const std::string name = "prompt[" + std::to_string(i) + "]";
      if (item.is_string()) {
        input.prompts.emplace_back(item.get<std::string>());
      } else if (!item.is_array()) {
        fields.fail_type(name, item, "a string or an array of tokens");
      } else if (auto tokens = read_tokens(fields, name, item)) {
        input.prompts.push_back(std::move(*tokens));
      }
    }
  } else if (auto tokens = read_tokens(fields, "prompt", *prompt)) {
    input.prompts.push_back(std::move(*tokens));
  }
}

void read_echo(JsonFields& fields, OpenAiRequest& request) {
  request.echo = fields.boolean("echo").value_or(false);
  if (request.echo && request.options().top_logprobs.has_value()) {
    fields.fail("echo", "is true beside logprobs; this server has none of prompts");
  }
}

/// The best of as many as are answered are those.
void read_best_of(JsonFields& fields, const GenerationOptions& options) {
  const auto best_of = fields.integer("best_of");
  if (best_of.has_value() && *best_of != options.n.value_or(1)) {
    fields.fail("best_of", "is " + std::to_string(*best_of) + "; this server supports only n (" +
                               std::to_string(options.n.value_or(1)) + ")");
  }
}

/// Parses the body and hands its members to `read`.
template <typename Read>
StatusOr<OpenAiRequest> parse(std::string_view body, OpenAiRequest request, const Read& read) {
  Json root;
  if (Status status = parse_body(body, root); !status.ok()) return status;
  Status status;
  JsonFields fields(root, "", status);
  std::visit([&](auto& in) { in.model = fields.string("model").value_or(""); }, request.input);
  read(fields, request, status);
  fields.refuse_unread();
  if (!status.ok()) return status;
  return request;
}

}  // namespace

StatusOr<OpenAiRequest> parse_chat_request(std::string_view body) {
  return parse(body, {.input = ChatInput{}, .names = {.chat = true}},
               [](JsonFields& fields, OpenAiRequest& request, Status& status) {
                 auto& input = std::get<ChatInput>(request.input);
                 read_chat_prompt(fields, input, status);
                 read_options(fields, request, status);
                 read_chat_logprobs(fields, input.options);
                 const auto newer = fields.integer("max_completion_tokens");
                 if (newer.has_value()) {
                   input.options.max_tokens = newer;
                   request.names.max_completion_tokens = true;
                 }
               });
}

StatusOr<OpenAiRequest> parse_completion_request(std::string_view body) {
  return parse(body, {.input = CompletionInput{}},
               [](JsonFields& fields, OpenAiRequest& request, Status& status) {
                 auto& input = std::get<CompletionInput>(request.input);
                 read_prompt(fields, input);
                 read_options(fields, request, status);
                 input.options.top_logprobs = fields.integer("logprobs");
                 read_echo(fields, request);
                 read_best_of(fields, input.options);
               });
}

Status with_names(const Status& status, const OpenAiNames& names) {
  constexpr std::string_view attention = "attention.";
  const std::string& field = status.field();
  if (field.starts_with(attention)) {
    return status.with_field("mobius." + field.substr(attention.size()));
  }
  if (field == "response_format.schema") {
    return status.with_field("response_format.json_schema.schema");
  }
  if (field == "priority") return status.with_field("mobius.priority");
  if (field == "max_tokens" && names.max_completion_tokens) {
    return status.with_field("max_completion_tokens");
  }
  if (field == "top_logprobs" && !names.chat) return status.with_field("logprobs");
  // A chat's prompt is what its messages become.
  if (field == "prompt" && names.chat) return status.with_field("messages");
  return status;
}

}  // namespace mobius
