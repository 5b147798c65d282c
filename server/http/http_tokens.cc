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

/// Makes the answer on a tokenizer thread: parsing, tokenization and writing take as long as the
/// text is long.
HttpSession::Awaitable<void> HttpSession::answer_tokens(TokenAnswer make) {
  struct Work {
    std::string body;
    std::optional<StatusOr<std::string>> answer;
    bool done = false;  // the session's strand alone touches it
  };
  const auto work = std::make_shared<Work>();
  work->body = std::move(request_.body());
  // References go back to the strand: a session must not be destroyed on another thread.
  const bool posted = context_->service.post([self = shared_from_this(), work, make]() mutable {
    try {
      work->answer.emplace(make(self->context_->service, work->body));
    } catch (const std::bad_alloc&) {
      work->answer.emplace(
          Status(StatusCode::resource_exhausted, "the server has no memory for this request"));
    } catch (const std::exception& error) {
      log_event(LogLevel::error, "request_failed", {{"error", error.what()}});
      work->answer.emplace(Status(StatusCode::internal, "the request could not be answered"));
    }
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
  while (posted && !work->done) co_await wait(std::chrono::hours(1));
  request_.body().shrink_to_fit();
  body_share_.resize(0);
  if (work->answer->ok()) {
    co_await respond(200, std::move(*work->answer).value());
    co_return;
  }
  const Status& status = work->answer->status();
  co_await respond(http_status_of(status.code()), error_body(status),
                   status.code() == StatusCode::resource_exhausted ? "Retry-After: 1\r\n" : "");
}

}  // namespace mobius
