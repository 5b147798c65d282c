#include "server/http/http_status.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

std::string_view error_type(int http_status) {
  if (http_status == 401) return "authentication_error";
  if (http_status == 403) return "permission_error";
  if (http_status == 429) return "rate_limit_error";
  return http_status < 500 ? "invalid_request_error" : "server_error";
}

std::string body(int http_status, const std::string& message, const Json& param, const Json& code) {
  const Json error = {
      {"message", message}, {"type", error_type(http_status)}, {"param", param}, {"code", code}};
  return Json{{"error", error}}.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

int http_status_of(StatusCode code) {
  switch (code) {
    case StatusCode::ok: return 200;
    case StatusCode::cancelled: return 499;
    case StatusCode::invalid_argument:
    case StatusCode::failed_precondition: return 400;
    case StatusCode::unauthenticated: return 401;
    case StatusCode::permission_denied: return 403;
    case StatusCode::not_found: return 404;
    case StatusCode::resource_exhausted: return 429;
    case StatusCode::unimplemented: return 501;
    case StatusCode::unavailable: return 503;
    case StatusCode::deadline_exceeded: return 504;
    case StatusCode::unknown:
    case StatusCode::internal: return 500;
  }
  return 500;
}

std::string error_body(const Status& status) {
  const Json param = status.field().empty() ? Json(nullptr) : Json(status.field());
  const bool is_model = status.code() == StatusCode::not_found && status.field() == "model";
  const std::string_view code = is_model                                       ? "model_not_found"
                                : status.code() == StatusCode::unauthenticated ? "invalid_api_key"
                                : status.code() == StatusCode::resource_exhausted
                                    ? "rate_limit_exceeded"
                                    : name_of(status.code());
  return body(http_status_of(status.code()), status.message(), param, code);
}

std::string error_body(int http_status, const std::string& message) {
  return body(http_status, message, nullptr, nullptr);
}

Status still_loading() {
  return {StatusCode::unavailable, "the model is being loaded"};
}

std::string retry_header(const Status& status) {
  if (status.code() != StatusCode::resource_exhausted) return {};
  const auto seconds = std::max<std::int64_t>(status.retry_after().count(), 1);
  return "Retry-After: " + std::to_string(seconds) + "\r\n";
}

}  // namespace mobius
