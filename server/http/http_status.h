#pragma once

#include <string>

#include "engine/status.h"

namespace mobius {

/// The one mapping from a Status to HTTP. A cancelled request has no client left; 499 is what logs
/// show for it.
int http_status_of(StatusCode code);

/// {"error": {"message", "type", "param", "code"}}, as OpenAI's clients expect it.
std::string error_body(const Status& status);

/// The same for what has no Status of its own (405, 413, 431, ...).
std::string error_body(int http_status, const std::string& message);

/// What requests get that come before the model is there.
Status still_loading();

/// The line that tells a client when to come back, for a refusal that is only for now; else empty.
std::string retry_header(const Status& status);

}  // namespace mobius
