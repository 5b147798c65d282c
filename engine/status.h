#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace mobius {

/// gRPC's codes, same numbers, as far as Mobius uses them.
enum class StatusCode : std::uint8_t {
  ok = 0,
  cancelled = 1,
  unknown = 2,
  invalid_argument = 3,
  deadline_exceeded = 4,
  not_found = 5,
  permission_denied = 7,
  resource_exhausted = 8,
  failed_precondition = 9,
  unimplemented = 12,
  internal = 13,
  unavailable = 14,
  unauthenticated = 16,
};

/// "invalid_argument" etc.
std::string_view name_of(StatusCode code);

/// The outcome of a call that a client can cause to fail. `message` is for that client: it names
/// the field, the value and the limit. `field` is the name of what is wrong ("max_tokens",
/// "messages[2].content", "attention.prefill.block"), empty where no single field is; the message
/// begins with it. Names are those of GenerationOptions, whatever the protocol: a front end whose
/// clients call a field otherwise renames it, once, on the way out.
class Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message, std::string field = {})
      : code_(code), message_(std::move(message)), field_(std::move(field)) {}

  static Status invalid(std::string field, std::string message) {
    return {StatusCode::invalid_argument, std::move(message), std::move(field)};
  }

  /// A refusal for now: it is worth trying again after about this long.
  static Status exhausted(std::string message, std::chrono::seconds retry_after) {
    Status status(StatusCode::resource_exhausted, std::move(message));
    status.retry_after_ = retry_after;
    return status;
  }

  /// The same with another name for `field()`, also at the message's beginning.
  Status with_field(const std::string& name) const;

  bool ok() const { return code_ == StatusCode::ok; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& field() const { return field_; }
  /// 0: nothing is known about when.
  std::chrono::seconds retry_after() const { return retry_after_; }

 private:
  StatusCode code_ = StatusCode::ok;
  std::string message_;
  std::string field_;
  std::chrono::seconds retry_after_{};
};

/// A value, or the reason why there is none.
template <typename T>
class StatusOr {
 public:
  StatusOr(T value) : state_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  StatusOr(Status status) : state_(std::move(status)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return std::holds_alternative<T>(state_); }
  /// OK where there is a value.
  Status status() const { return ok() ? Status() : std::get<Status>(state_); }
  T& value() & { return std::get<T>(state_); }
  const T& value() const& { return std::get<T>(state_); }
  T&& value() && { return std::get<T>(std::move(state_)); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace mobius
