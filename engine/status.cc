#include "engine/status.h"

namespace mobius {

std::string_view name_of(StatusCode code) {
  switch (code) {
    case StatusCode::ok: return "ok";
    case StatusCode::cancelled: return "cancelled";
    case StatusCode::unknown: return "unknown";
    case StatusCode::invalid_argument: return "invalid_argument";
    case StatusCode::deadline_exceeded: return "deadline_exceeded";
    case StatusCode::not_found: return "not_found";
    case StatusCode::permission_denied: return "permission_denied";
    case StatusCode::resource_exhausted: return "resource_exhausted";
    case StatusCode::failed_precondition: return "failed_precondition";
    case StatusCode::unimplemented: return "unimplemented";
    case StatusCode::internal: return "internal";
    case StatusCode::unavailable: return "unavailable";
    case StatusCode::unauthenticated: return "unauthenticated";
  }
  return "unknown";
}

Status Status::with_field(const std::string& name) const {
  std::string message = message_;
  if (!field_.empty() && message.starts_with(field_)) message.replace(0, field_.size(), name);
  Status renamed(code_, std::move(message), name);
  renamed.retry_after_ = retry_after_;
  return renamed;
}

}  // namespace mobius
