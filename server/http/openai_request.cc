#include "server/http/openai_request.h"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/http/generation_fields.h"
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

/// Members that would change the answer.
constexpr auto kUnsupported = std::to_array<NeutralMember>({
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

void read_response_format(JsonFields& parent, ResponseFormat& format, Status& status) {
  const Json* object = parent.object("response_format");
  if (object == nullptr) return;
  JsonFields fields(*object, "response_format", status);
  const std::string type = fields.string("type").value_or("");
  if (type == "json_schema") {
    format.kind = ResponseFormat::Kind::json_schema;
    const Json* schema = fields.object("json_schema");
    if (schema == nullptr) {
      fields.fail("json_schema", "is missing");
    } else {
      JsonFields inner(*schema, fields.path("json_schema"), status);
      read_format_schema(inner, format);
      inner.refuse_unread();
    }
  } else if (type == "json_object") {
    format.kind = ResponseFormat::Kind::json_object;
  } else if (type != "text") {
    fields.fail("type", "is \"" + brief_text(type) +
                            "\"; must be \"text\", \"json_object\" or \"json_schema\"");
  }
  fields.refuse_unread();
}

void read_stream(JsonFields& fields, OpenAiRequest& request, Status& status) {
  const Json* object = read_stream_options(fields, request.stream);
  if (object == nullptr) return;
  JsonFields options(*object, "stream_options", status);
  request.include_usage = options.boolean("include_usage").value_or(false);
  options.boolean("include_obfuscation");
  options.refuse_unread();
}

/// What both endpoints share.
void read_options(JsonFields& fields, OpenAiRequest& request, Status& status) {
  GenerationOptions& options = request.options();
  options.max_tokens = fields.integer("max_tokens");
  options.n = fields.integer("n");
  read_sampling(fields, options, status);
  request.names.priority = read_priority(fields, options);
  read_response_format(fields, options.response_format, status);
  read_stream(fields, request, status);
  options.prompt_logprobs = request.prompt_logprobs = fields.integer("prompt_logprobs");
  if (request.stream && request.prompt_logprobs.has_value()) {
    fields.fail("prompt_logprobs", "is set; it is allowed only without \"stream\": true");
  }
  for (const std::string_view name : kIgnored) fields.any(name);
  require_neutral(fields, kUnsupported);
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
  GenerationOptions& options = request.options();
  if (!request.echo || !options.top_logprobs.has_value()) return;
  options.prompt_logprobs = std::max(options.prompt_logprobs.value_or(0), *options.top_logprobs);
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
  return parse(body, {.input = ChatInput{}, .names = {.endpoint = OpenAiEndpoint::chat}},
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

StatusOr<OpenAiRequest> parse_request(OpenAiEndpoint endpoint, std::string_view body) {
  switch (endpoint) {
    case OpenAiEndpoint::completions: return parse_completion_request(body);
    case OpenAiEndpoint::chat: return parse_chat_request(body);
    case OpenAiEndpoint::responses: return parse_responses_request(body);
  }
  return Status(StatusCode::internal, "no such endpoint");
}

Status with_names(const Status& status, const OpenAiNames& names) {
  constexpr std::string_view attention = "attention.";
  const std::string& field = status.field();
  if (names.endpoint == OpenAiEndpoint::responses) {
    constexpr std::string_view function = ".function";
    if (field == "max_tokens") return status.with_field("max_output_tokens");
    if (field == "response_format.schema") return status.with_field("text.format.schema");
    if (field == "prompt" || field.starts_with("messages")) return status.with_field("input");
    if (const auto at = field.find(function); at != std::string::npos) {
      return status.with_field(std::string(field).erase(at, function.size()));
    }
  }
  if (field.starts_with(attention)) {
    return status.with_field("mobius." + field.substr(attention.size()));
  }
  if (field == "response_format.schema") {
    return status.with_field("response_format.json_schema.schema");
  }
  if (field == "deadline") return status.with_field("mobius.timeout_ms");
  if (field == "routing" || (field == "priority" && !names.priority)) {
    return status.with_field("mobius." + field);
  }
  if (field == "max_tokens" && names.max_completion_tokens) {
    return status.with_field("max_completion_tokens");
  }
  const bool chat = names.endpoint == OpenAiEndpoint::chat;
  if (field == "top_logprobs" && names.endpoint == OpenAiEndpoint::completions)
    return status.with_field("logprobs");
  // A chat's prompt is what its messages become.
  if (field == "prompt" && chat) return status.with_field("messages");
  return status;
}

}  // namespace mobius
