#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string>

#include "server/http/http_session.h"
#include "server/http/http_status.h"
#include "server/http/token_endpoints.h"
#include "server/json.h"
#include "server/metrics/exposition.h"
#include "server/web/web_files.h"

namespace mobius {

namespace http = boost::beast::http;

namespace {

using Json = nlohmann::ordered_json;

std::string model_json(const GenerationService& service) {
  const RunnerInfo& info = service.engine().model();
  const Json model = {{"id", service.model_name()},
                      {"object", "model"},
                      {"created", 0},
                      {"owned_by", "mobius"},
                      {"mobius",
                       {{"max_context", info.limits.max_context},
                        {"page_tokens", info.page_tokens},
                        {"routing", info.tells_blocks},
                        {"device", info.device}}}};
  return model.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string ready_json(const GenerationService& service) {
  const EngineStats stats = service.engine().stats();
  return Json{{"status", service.ready() ? "ready" : "not ready"},
              {"running", stats.running},
              {"waiting", stats.waiting},
              {"pages_total", stats.pages_total},
              {"pages_used", stats.pages_used},
              {"queued_bytes", service.queued_bytes()}}
      .dump();
}

enum class Endpoint {
  health,
  ready,
  metrics,
  models,
  model,
  web,  // GET
  chat,
  completions,
  responses,
  tokenize,
  detokenize,
  render,  // POST
  none
};

Endpoint endpoint_of(std::string_view path) {
  if (path == "/health") return Endpoint::health;
  if (path == "/ready") return Endpoint::ready;
  if (path == "/metrics") return Endpoint::metrics;
  if (path == "/v1/models") return Endpoint::models;
  if (path.starts_with("/v1/models/")) return Endpoint::model;
  if (path == "/v1/chat/completions") return Endpoint::chat;
  if (path == "/v1/completions") return Endpoint::completions;
  if (path == "/v1/responses") return Endpoint::responses;
  if (path == "/tokenize") return Endpoint::tokenize;
  if (path == "/detokenize") return Endpoint::detokenize;
  if (path == "/v1/chat/completions/render") return Endpoint::render;
  if (path == "/" || path.starts_with("/web/")) return Endpoint::web;
  return Endpoint::none;
}

/// What anybody may have: whether the server lives, and the page that asks for a key.
bool is_open(Endpoint endpoint, bool metrics_need_key) {
  return endpoint == Endpoint::health || endpoint == Endpoint::ready || endpoint == Endpoint::web ||
         (endpoint == Endpoint::metrics && !metrics_need_key);
}

bool is_post(Endpoint endpoint) {
  return endpoint >= Endpoint::chat && endpoint != Endpoint::none;
}

/// A browser's question whether a page of another origin may send a request.
bool is_preflight(const http::request_header<>& header) {
  return header.method() == http::verb::options &&
         !header[http::field::access_control_request_method].empty();
}

bool is_json(std::string_view content_type) {
  const std::string_view type = content_type.substr(0, content_type.find_first_of("; \t"));
  return type.empty() || boost::beast::iequals(type, "application/json");
}

/// A path's segment as its client meant it. What is no escape stays as it is.
std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    const std::string_view digits = text.substr(i + 1, 2);
    const char* const end = digits.data() + digits.size();
    if (text[i] == '%' && digits.size() == 2 &&
        std::from_chars(digits.data(), end, byte, 16).ptr == end) {
      out += static_cast<char>(byte);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

/// Decides by its header whether a request may go on, and counts it where it costs something.
Status HttpSession::admit(const http::request_header<>& header) {
  const std::string_view target = header.target();
  const Endpoint endpoint = endpoint_of(target.substr(0, target.find('?')));
  const std::string_view origin = header[http::field::origin];
  // Browsers ask without a key.
  if (is_preflight(header) && context_->cors.allows(origin)) return {};
  if (header.method() == http::verb::post) {
    Status status = context_->cors.check_origin(origin, header[http::field::host]);
    if (!status.ok()) return status;
  }
  if (is_open(endpoint, context_->metrics_need_key)) return {};
  auto account = context_->keys.account_of(header[http::field::authorization]);
  if (!account.ok()) return account.status();
  account_ = std::move(account).value();
  if (!is_post(endpoint) || header.method() != http::verb::post) return {};
  if (Status status = account_->begin(); !status.ok()) return status;
  admission_.emplace(account_);
  return {};
}

Caller HttpSession::caller() const {
  return {request_id_, account_, trace_};
}

HttpSession::Awaitable<void> HttpSession::route() {
  const std::string_view target = request_.target();
  const std::string_view path = target.substr(0, target.find('?'));
  const Endpoint endpoint = endpoint_of(path);
  const WebFile file = endpoint == Endpoint::web ? find_web_file(path) : WebFile{};
  if (endpoint == Endpoint::none || (endpoint == Endpoint::web && file.data.empty())) {
    co_await respond(404, error_body(404, "there is nothing at " + brief_text(path, 128)));
    co_return;
  }

  if (is_preflight(request_) && context_->cors.allows(request_[http::field::origin])) {
    co_await respond(
        200, {},
        CorsPolicy::preflight_headers(request_[http::field::access_control_request_headers]));
    co_return;
  }
  const bool takes_post = is_post(endpoint);
  const http::verb method = request_.method();
  const bool allowed = takes_post ? method == http::verb::post
                                  : method == http::verb::get || method == http::verb::head;
  if (!allowed) {
    const std::string message = std::string(path) + (takes_post ? " takes POST" : " takes GET");
    co_await respond(405, error_body(405, message),
                     takes_post ? "Allow: POST\r\n" : "Allow: GET, HEAD\r\n");
    co_return;
  }

  switch (endpoint) {
    case Endpoint::health: co_await respond(200, R"({"status":"ok"})"); co_return;
    case Endpoint::web:
      co_await respond(200, std::string(file.data), kWebHeaders, file.content_type);
      co_return;
    case Endpoint::ready:
      if (service_ != nullptr) break;
      co_await respond(503, R"({"status":"loading"})");
      co_return;
    default: break;
  }
  if (service_ == nullptr) {
    const Status status = still_loading();
    co_await respond(http_status_of(status.code()), error_body(status), retry_header(status));
    co_return;
  }

  const GenerationService& service = *service_;
  switch (endpoint) {
    case Endpoint::ready:
      co_await respond(service.ready() ? 200 : 503, ready_json(service));
      co_return;
    case Endpoint::metrics:
      co_await respond(
          200,
          render_metrics(service.metrics(), service.engine().stats(), service.engine().model(),
                         service.model_name(), service.ready()),
          {}, kMetricsContentType);
      co_return;
    case Endpoint::models:
      co_await respond(200, R"({"object":"list","data":[)" + model_json(service) + "]}");
      co_return;
    case Endpoint::model: {
      const std::string name = percent_decoded(path.substr(std::string_view("/v1/models/").size()));
      if (name == service.model_name()) {
        co_await respond(200, model_json(service));
      } else {
        const Status status(StatusCode::not_found,
                            "model \"" + brief_text(name) + "\" does not exist", "model");
        co_await respond(404, error_body(status));
      }
      co_return;
    }
    default: break;
  }

  if (!is_json(request_[http::field::content_type])) {
    co_await respond(415, error_body(415, "Content-Type is \"" +
                                              brief_text(request_[http::field::content_type]) +
                                              "\"; must be application/json"));
    co_return;
  }
  const std::string_view encoding = request_[http::field::content_encoding];
  if (!encoding.empty() && !boost::beast::iequals(encoding, "identity")) {
    co_await respond(415, error_body(415, "Content-Encoding is \"" + brief_text(encoding) +
                                              "\"; bodies must not be compressed"));
    co_return;
  }
  switch (endpoint) {
    case Endpoint::tokenize: co_await answer_tokens(answer_tokenize); break;
    case Endpoint::detokenize: co_await answer_tokens(answer_detokenize); break;
    case Endpoint::render: co_await answer_tokens(answer_render); break;
    case Endpoint::chat: co_await generate(OpenAiEndpoint::chat); break;
    case Endpoint::responses: co_await generate(OpenAiEndpoint::responses); break;
    default: co_await generate(OpenAiEndpoint::completions);
  }
}

}  // namespace mobius
