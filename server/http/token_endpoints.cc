#include "server/http/token_endpoints.h"

#include <nlohmann/json.hpp>
#include <utility>
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

/// Parses the body and checks the model that it names.
Status read_object(const GenerationService& service, std::string_view body, Json& root) {
  std::string error;
  if (!parse_json(body, {}, root, error)) {
    return Status::invalid("", "the body is not valid JSON: " + error);
  }
  if (!root.is_object()) {
    return Status::invalid("",
                           "the body is " + std::string(type_name(root)) + "; must be an object");
  }
  const auto model = root.find("model");
  return model != root.end() && model->is_string()
             ? service.check_model(model->get_ref<const std::string&>())
             : Status();
}

StatusOr<Tokens> tokens_of_text(const GenerationService& service, JsonFields& fields,
                                Status& status) {
  const auto prompt = fields.string("prompt");
  if (!prompt.has_value()) fields.fail("prompt", "is missing");
  const bool with_begin = fields.boolean("add_special_tokens").value_or(true);
  if (!status.ok()) return status;
  if (with_begin) {
    CompletionInput input;
    input.prompt = *prompt;
    return service.prompt_of(input);
  }
  Tokens tokens;
  service.tokenizer().encode(*prompt, tokens);
  return tokens;
}

StatusOr<Tokens> tokens_of_chat(const GenerationService& service, JsonFields& fields,
                                Status& status) {
  ChatInput input;
  read_chat_prompt(fields, input, status);
  if (!status.ok()) return status;
  StatusOr<Tokens> tokens = service.prompt_of(input);
  if (!tokens.ok()) return with_names(tokens.status(), {.chat = true});
  return tokens;
}

}  // namespace

StatusOr<std::string> answer_tokenize(const GenerationService& service, std::string_view body) {
  Json root;
  if (Status status = read_object(service, body, root); !status.ok()) return status;
  Status status;
  JsonFields fields(root, "", status);
  fields.string("model");
  const bool with_text = fields.boolean("return_token_strs").value_or(false);
  const StatusOr<Tokens> tokens = root.contains("messages")
                                      ? tokens_of_chat(service, fields, status)
                                      : tokens_of_text(service, fields, status);
  fields.refuse_unread();
  if (!status.ok()) return status;
  if (!tokens.ok()) return tokens.status();
  Json answer = {{"count", tokens.value().size()},
                 {"max_model_len", service.engine().model().limits.max_context},
                 {"tokens", tokens.value()},
                 {"token_strs", nullptr}};
  if (with_text) {
    Json& texts = answer["token_strs"] = Json::array();
    for (const std::int32_t token : tokens.value()) {
      texts.push_back(service.tokenizer().bytes(token));
    }
  }
  return text_of(answer);
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
  StatusOr<OpenAiRequest> request = parse_chat_request(body);
  if (!request.ok()) return request.status();
  const auto& input = std::get<ChatInput>(request.value().input);
  if (Status status = service.check_model(input.model); !status.ok()) return status;
  const StatusOr<Tokens> tokens = service.prompt_of(input);
  if (!tokens.ok()) return with_names(tokens.status(), request.value().names);
  return text_of({{"prompt", service.tokenizer().decode(tokens.value(), true)},
                  {"token_ids", tokens.value()},
                  {"count", tokens.value().size()}});
}

}  // namespace mobius
