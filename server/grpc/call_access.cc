#include "server/grpc/call_access.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "server/grpc/grpc_convert.h"
#include "server/security/request_id.h"

namespace mobius {
namespace {

constexpr char kRequestId[] = "x-request-id";

/// Empty if the client sent none, or several.
std::string_view metadata(const grpc::CallbackServerContext& context, const char* name) {
  const auto& all = context.client_metadata();
  const auto [begin, end] = all.equal_range(name);
  if (begin == end || std::next(begin) != end) return {};
  return {begin->second.data(), begin->second.size()};
}

/// Metadata values must be printable ASCII; a field's name may hold a client's own bytes.
std::string metadata_value(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < 0x20 || c > 0x7E; }, '?');
  return text;
}

}  // namespace

CallAccess::CallAccess(grpc::CallbackServerContext& context, const char* method)
    : context_(context),
      method_(method),
      request_id_(request_id(metadata(context, kRequestId))),
      trace_(trace_context(metadata(context, "traceparent"))) {
  context_.AddInitialMetadata(kRequestId, request_id_);
  if (!trace_.empty()) context_.AddInitialMetadata("traceresponse", trace_.response());
}

Status CallAccess::admit(const KeyStore& keys, bool counted) {
  auto account = keys.account_of(metadata(context_, "authorization"));
  if (!account.ok()) return account.status();
  account_ = std::move(account).value();
  if (!counted) return {};
  if (Status status = account_->begin(); !status.ok()) {
    const auto milliseconds = std::chrono::milliseconds(status.retry_after()).count();
    context_.AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(milliseconds));
    return status;
  }
  admission_.emplace(account_);
  return {};
}

grpc::Status CallAccess::end(const Status& status, LogLevel level) const {
  if (!status.field().empty()) {
    context_.AddTrailingMetadata("mobius-field", metadata_value(status.field()));
  }
  log_event(level, "call",
            {{"request_id", request_id_},
             {"key", account_ != nullptr ? std::string_view(account_->name()) : std::string_view()},
             {"method", method_},
             {"status", name_of(status.code())},
             {"trace_id", unless_empty(trace_.trace_id)},
             {"parent_id", unless_empty(trace_.parent_id)},
             {"span_id", unless_empty(trace_.span_id)},
             {"ms", milliseconds(Clock::now() - started_)}});
  return to_grpc(status);
}

}  // namespace mobius
