#include "server/grpc/call_access.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "server/log.h"
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

}  // namespace

CallAccess::CallAccess(grpc::CallbackServerContext& context, const char* method)
    : context_(context), method_(method), request_id_(request_id(metadata(context, kRequestId))) {
  context_.AddInitialMetadata(kRequestId, request_id_);
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

void CallAccess::log(const Status& status) const {
  log_event(LogLevel::info, "call",
            {{"request_id", request_id_},
             {"key", account_ != nullptr ? std::string_view(account_->name()) : std::string_view()},
             {"method", method_},
             {"status", name_of(status.code())},
             {"ms", milliseconds(Clock::now() - started_)}});
}

}  // namespace mobius
