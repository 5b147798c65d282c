#include "server/http/token_endpoints.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <variant>
#include <vector>

#include "server/http/json_fields.h"
#include "server/http/openai_request.h"
#include "server/json.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;
using Tokens = std::vector<std::int32_t>;

std::string text_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

constexpr std::size_t kMaxTokenTexts = 131072;

Status check_size(std::string_view body) {
  if (body.size() <= kMaxTokenizeBytes) return {};
  return Status::invalid("", "the body has " + std::to_string(body.size()) +
                                 " bytes; this endpoint takes at most " +
                                 std::to_string(kMaxTokenizeBytes));
}

/// The body as an object whose model, if it names one, is this server's.
Status read_object(const GenerationService& service, std::string_view body, Json& root) {
  if (Status status = check_size(body); !status.ok()) return status;
  if (Status status = parse_body(body, root); !status.ok()) return status;
  const auto model = root.find("model");
  return model != root.end() && model->is_string()
             ? service.check_model(model->get_ref<const std::string&>())
             : Status();
}

/// What /tokenize was asked for, before any of it is tokenized.
struct TokenizeRequest {
  std::variant<std::string, ChatInput> prompt;
  bool with_begin = true;
  bool with_texts = false;
};

StatusOr<TokenizeRequest> read_tokenize(const Json& root) {
  Status status;
  JsonFields fields(root, "", status);
  fields.string("model");
  TokenizeRequest request;
  request.with_texts = fields.boolean("return_token_strs").value_or(false);
  if (root.contains("messages")) {
    if (root.contains("prompt"))
      fields.fail("prompt", "is there beside messages; send one of the two");
    ChatInput chat;
    read_chat_prompt(fields, chat, status);
    request.prompt = std::move(chat);
  } else {
    auto prompt = fields.string("prompt");
    if (!prompt.has_value()) fields.fail("prompt", "is missing");
    request.prompt = std::move(prompt).value_or("");
    request.with_begin = fields.boolean("add_special_tokens").value_or(true);
  }
  fields.refuse_unread();
  if (!status.ok()) return status;
  return request;
}

StatusOr<Tokens> tokens_of(const GenerationService& service, const TokenizeRequest& request) {
  if (const auto* chat = std::get_if<ChatInput>(&request.prompt)) {
    StatusOr<Tokens> tokens = service.prompt_of(*chat);
    if (!tokens.ok()) return with_names(tokens.status(), {.endpoint = OpenAiEndpoint::chat});
    return tokens;
  }
  Tokens tokens;
  if (request.with_begin && service.bos_token() >= 0) tokens.push_back(service.bos_token());
  service.tokenizer().encode(std::get<std::string>(request.prompt), tokens);
  return tokens;
}

// Millions of numbers as JSON values would take many times the memory of their text.
std::string list_of(const Tokens& tokens) {
  std::string list = "[";
  for (const std::int32_t token : tokens) {
    if (list.size() > 1) list += ',';
    list += std::to_string(token);
  }
  return list + ']';
}

}  // namespace

StatusOr<std::string> answer_tokenize(const GenerationService& service, std::string_view body) {
  Json root;
  if (Status status = read_object(service, body, root); !status.ok()) return status;
  const StatusOr<TokenizeRequest> request = read_tokenize(root);
  if (!request.ok()) return request.status();
  const StatusOr<Tokens> made = tokens_of(service, request.value());
  if (!made.ok()) return made.status();
  const Tokens& tokens = made.value();
  std::string texts = "null";
  if (request.value().with_texts) {
    if (tokens.size() > kMaxTokenTexts) {
      return Status::invalid("return_token_strs",
                             "return_token_strs is set for " + std::to_string(tokens.size()) +
                                 " tokens; must be at most " + std::to_string(kMaxTokenTexts));
    }
    Json list = Json::array();
    for (const std::int32_t token : tokens) list.push_back(service.tokenizer().bytes(token));
    texts = text_of(list);
  }
  return "{\"count\":" + std::to_string(tokens.size()) +
         ",\"max_model_len\":" + std::to_string(service.engine().model().limits.max_context) +
         ",\"tokens\":" + list_of(tokens) + ",\"token_strs\":" + texts + '}';
}

StatusOr<std::string> answer_detokenize(const GenerationService& service, std::string_view body) {
  Json root;
  if (Status status = read_object(service, body, root); !status.ok()) return status;
  Status status;
  JsonFields fields(root, "", status);
  fields.string("model");
  const Json* ids = fields.array("tokens");
  if (ids == nullptr) fields.fail("tokens", "is missing");
  fields.refuse_unread();
  if (!status.ok()) return status;
  const std::int32_t vocabulary = service.engine().model().vocab_size;
  Tokens tokens;
  tokens.reserve(ids->size());
  for (std::size_t i = 0; i < ids->size(); ++i) {
    const auto id = as_int64((*ids)[i]);
    if (!id.has_value() || *id < 0 || *id >= vocabulary) {
      const std::string name = "tokens[" + std::to_string(i) + "]";
      return Status::invalid(name, name + " is " + brief((*ids)[i]) +
                                       "; must be a token id, 0 to " +
                                       std::to_string(vocabulary - 1));
    }
    tokens.push_back(static_cast<std::int32_t>(*id));
  }
  return text_of({{"prompt", service.tokenizer().decode(tokens, true)}});
}

StatusOr<std::string> answer_render(const GenerationService& service, std::string_view body) {
  if (Status status = check_size(body); !status.ok()) return status;
  StatusOr<OpenAiRequest> request = parse_chat_request(body);
  if (!request.ok()) return request.status();
  const auto& input = std::get<ChatInput>(request.value().input);
  if (Status status = service.check_model(input.model); !status.ok()) return status;
  const StatusOr<Tokens> tokens = service.prompt_of(input);
  if (!tokens.ok()) return with_names(tokens.status(), request.value().names);
  return "{\"prompt\":" + text_of(service.tokenizer().decode(tokens.value(), true)) +
         ",\"token_ids\":" + list_of(tokens.value()) +
         ",\"count\":" + std::to_string(tokens.value().size()) + '}';
}

}  // namespace mobius
