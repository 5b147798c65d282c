#pragma once

#include <string>
#include <string_view>

namespace mobius {

/// The name of a request in answers and logs: the client's own (x-request-id) where it can stand in
/// a header and a log line as it is (1 to 128 letters, digits and any of "-_.:/+="), else a new
/// random one, "req-" and 32 hexadecimal digits. Thread-safe.
std::string request_id(std::string_view offered);

}  // namespace mobius
