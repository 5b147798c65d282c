#include <atomic>
#include <boost/asio/post.hpp>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "server/http/http_session.h"
#include "server/http/http_status.h"
#include "server/log.h"

namespace mobius {

namespace asio = boost::asio;

namespace {

struct TokenWork {
  std::string body;
  std::optional<StatusOr<std::string>> answer;
  std::atomic<bool> abandoned = false;  // nobody waits: what has not begun is skipped
  bool done = false;                    // the session's strand alone touches it
};

StatusOr<std::string> make_answer(const GenerationService& service, HttpSession::TokenAnswer make,
                                  const TokenWork& work) try {
  if (work.abandoned.load()) return Status(StatusCode::cancelled, "the client is gone");
  return make(service, work.body);
} catch (const std::bad_alloc&) {
  return Status(StatusCode::resource_exhausted, "the server has no memory for this request");
} catch (const std::exception& error) {
  log_event(LogLevel::error, "request_failed", {{"error", error.what()}});
  return Status(StatusCode::internal, "the request could not be answered");
}

}  // namespace

/// Makes the answer on a thread for that: parsing, tokenization and writing take as long as the
/// text is long.
HttpSession::Awaitable<void> HttpSession::answer_tokens(TokenAnswer make) {
  const auto work = std::make_shared<TokenWork>();
  work->body = std::move(request_.body());
  request_.body().shrink_to_fit();
  watch();
  // References go back to the strand: a session must not be destroyed on another thread.
  const bool posted = context_->token_work.post([self = shared_from_this(), work, make]() mutable {
    work->answer.emplace(make_answer(*self->service_, make, *work));
    const auto executor = self->socket_.get_executor();
    asio::post(executor, [self = std::move(self), work = std::move(work)] {
      work->done = true;
      self->wake();
    });
  });
  if (!posted) {
    work->answer.emplace(
        Status(StatusCode::resource_exhausted, "too many requests wait to be tokenized"));
  }
  while (posted && !work->done) {
    co_await wait(std::chrono::hours(1));
    if (disconnected_) work->abandoned.store(true);
  }
  co_await stop_watching();
  body_share_.reset();
  if (disconnected_) {
    keep_alive_ = false;
    status_ = http_status_of(StatusCode::cancelled);
    co_return;
  }
  if (work->answer->ok()) {
    co_await respond(200, std::move(*work->answer).value());
    co_return;
  }
  const Status& status = work->answer->status();
  service_->refused(status.code());
  co_await respond(http_status_of(status.code()), error_body(status), retry_header(status));
}

}  // namespace mobius
