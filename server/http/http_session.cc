#include "server/http/http_session.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <exception>
#include <utility>

#include "server/http/http_status.h"
#include "server/json.h"
#include "server/log.h"
#include "server/security/request_id.h"

namespace mobius {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

namespace {

constexpr std::string_view kRequestId = "x-request-id";
constexpr std::string_view kTraceParent = "traceparent";
constexpr auto kUse = asio::as_tuple(asio::use_awaitable);

/// What a request that could not be read gets; 0 when there is nobody or nothing to answer.
int status_of_read_error(const error_code& error, bool timed_out, bool has_bytes) {
  if (timed_out) return has_bytes ? 408 : 0;
  if (error == http::error::header_limit || error == http::error::buffer_overflow) return 431;
  if (error == http::error::body_limit) return 413;
  if (error == http::error::end_of_stream || error == http::error::partial_message) return 0;
  if (error.category() == http::make_error_code(http::error::bad_method).category()) return 400;
  return 0;
}

/// A peer that vanishes without a word (power, network) is an error of the socket after about two
/// minutes, whether we wait for it or write to it.
void notice_lost_peer(asio::ip::tcp::socket& socket) {
  constexpr int kIdleSeconds = 60;
  constexpr int kIntervalSeconds = 15;
  constexpr int kProbes = 4;
  constexpr int kUnacknowledgedMs = 1000 * (kIdleSeconds + kIntervalSeconds * kProbes);
  const auto set = [&socket](int level, int name, int value) {
    // Refused, they leave the system's own, longer times.
    setsockopt(socket.native_handle(), level, name, &value, sizeof value);
  };
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, kIdleSeconds);
  set(IPPROTO_TCP, TCP_KEEPINTVL, kIntervalSeconds);
  set(IPPROTO_TCP, TCP_KEEPCNT, kProbes);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, kUnacknowledgedMs);
}

/// What waits in the kernel for a client that does not read: without a limit it is megabytes, of
/// each connection. Enough for a fast client far away.
void bound_send_buffer(asio::ip::tcp::socket& socket) {
  error_code ignored;
  socket.set_option(asio::socket_base::send_buffer_size(256 << 10), ignored);
}

/// Without query and fragment, which are not for the log: they may hold secrets.
std::string_view path_of(std::string_view target) {
  return target.substr(0, target.find_first_of("?#"));
}

std::string_view key_name(const std::shared_ptr<KeyAccount>& account) {
  return account != nullptr ? std::string_view(account->name()) : std::string_view();
}

std::string what(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "unknown exception";
  }
}

}  // namespace

HttpSession::HttpSession(std::shared_ptr<HttpContext> context, HttpStream socket)
    : context_(std::move(context)),
      socket_(std::move(socket)),
      deadline_(socket_.get_executor()),
      wake_timer_(socket_.get_executor()) {
  const std::lock_guard lock(context_->mutex);
  context_->sessions.insert(this);
}

HttpSession::~HttpSession() {
  const std::lock_guard lock(context_->mutex);
  context_->sessions.erase(this);
}

void start_http_session(std::shared_ptr<HttpContext> context, asio::ip::tcp::socket socket) {
  error_code ignored;
  socket.set_option(asio::ip::tcp::no_delay(true), ignored);
  notice_lost_peer(socket);
  bound_send_buffer(socket);
  const asio::any_io_executor executor = socket.get_executor();
  const auto tls = context->certificates.current();
  HttpStream stream(std::move(socket), tls != nullptr ? tls->context.get() : nullptr);
  auto session = std::make_shared<HttpSession>(std::move(context), std::move(stream));
  asio::co_spawn(
      executor, [session]() { return session->run(); },
      [session](const std::exception_ptr& failure) {
        if (failure) log_event(LogLevel::error, "http_session_failed", {{"error", what(failure)}});
      });
}

void close_http_sessions(HttpContext& context, bool now) {
  std::vector<std::shared_ptr<HttpSession>> sessions;
  {
    const std::lock_guard lock(context.mutex);
    for (HttpSession* session : context.sessions) {
      // A session whose last owner is letting go is closing anyway.
      if (auto shared = session->weak_from_this().lock()) sessions.push_back(std::move(shared));
    }
  }
  for (const auto& session : sessions) session->close(now);
}

void HttpSession::close(bool now) {
  asio::post(socket_.get_executor(), [self = shared_from_this(), now] {
    self->closing_ = true;
    if (self->busy_.has_value() && !now) return;
    self->close_now();
  });
}

void HttpSession::close_now() {
  error_code ignored;
  socket_.socket().close(ignored);
  disconnected_ = true;
  wake();
}

HttpSession::Awaitable<void> HttpSession::run() {
  const auto self = shared_from_this();
  bool next = co_await shake_hands();
  while (next && !closing_ && !context_->draining.load()) {
    next = co_await read_request();
    if (next) {
      co_await answer();
      next = keep_alive_ && !disconnected_;
    }
    request_ = {};
    admission_.reset();
    account_.reset();
    body_share_.reset();
    busy_.reset();
  }
  if (!disconnected_) co_await linger();
  disarm();
}

HttpSession::Awaitable<void> HttpSession::answer() {
  started_ = Clock::now();
  std::exception_ptr failure;
  try {
    co_await route();
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) {
    // Not a client's doing: say so and give up this connection, no other.
    log_event(LogLevel::error, "request_failed", {{"error", what(failure)}});
    keep_alive_ = false;
    if (status_ == 0 && !disconnected_) {
      co_await respond(500, error_body(500, "the server failed to answer this request"));
    } else {
      // Something of an answer is out: cut off, it does not pass for a whole one.
      close_now();
    }
  }
  // Probes and scrapes come every few seconds for as long as the process lives.
  const std::string_view path = path_of(request_.target());
  const bool probe = path == "/health" || path == "/ready" || path == "/metrics";
  log_event(probe ? LogLevel::debug : LogLevel::info, "request",
            {{"request_id", request_id_},
             {"key", key_name(account_)},
             {"method", request_.method_string()},
             {"target", brief_text(path, 128)},
             {"status", std::int64_t{status_}},
             {"trace_id", unless_empty(trace_.trace_id)},
             {"parent_id", unless_empty(trace_.parent_id)},
             {"span_id", unless_empty(trace_.span_id)},
             {"ms", milliseconds(Clock::now() - started_)}});
}

/// False where the client and we cannot talk.
HttpSession::Awaitable<bool> HttpSession::shake_hands() {
  HttpStream::TlsStream* const tls = socket_.tls();
  if (tls == nullptr) co_return true;
  arm(std::chrono::seconds(context_->options.header_timeout_seconds));
  const auto [failure] = co_await tls->async_handshake(asio::ssl::stream_base::server, kUse);
  disarm();
  if (!failure) co_return true;
  disconnected_ = true;
  // A client that just goes says nothing; health checks of load balancers do that all the time.
  const bool silent = timed_out_ || failure == asio::error::eof ||
                      failure == asio::error::connection_reset ||
                      failure == asio::ssl::error::stream_truncated;
  log_event(silent ? LogLevel::debug : LogLevel::info, "tls_handshake_failed",
            {{"protocol", "http"}, {"error", failure.message()}});
  co_return false;
}

/// Reads the next request into `request_`. False when the connection is to be closed.
HttpSession::Awaitable<bool> HttpSession::read_request() {
  const ServerConfig::Http& options = context_->options;
  keep_alive_ = false;
  status_ = 0;
  set_request_id({});
  if (buffer_.size() == 0) {
    arm(std::chrono::seconds(options.idle_timeout_seconds));
    const auto [error, bytes] = co_await socket_.async_read_some(buffer_.prepare(4096), kUse);
    if (error) co_return false;
    buffer_.commit(bytes);
  }

  http::request_parser<http::string_body> parser;
  parser.header_limit(static_cast<std::uint32_t>(options.max_header_bytes));
  parser.body_limit(static_cast<std::uint64_t>(options.max_body_bytes));
  arm(std::chrono::seconds(options.header_timeout_seconds));
  auto [error, bytes] = co_await http::async_read_header(socket_, buffer_, parser, kUse);
  if (error) {
    disarm();
    const int status = status_of_read_error(error, timed_out_, buffer_.size() > 0 || bytes > 0);
    if (status == 408) co_await refuse(408, "the request's header did not arrive in time");
    if (status == 400) co_await refuse(400, "the request is not valid HTTP: " + error.message());
    if (status == 413) {
      co_await refuse(413, "the body is too long; at most " +
                               std::to_string(options.max_body_bytes) + " bytes are allowed");
    }
    if (status == 431) {
      co_await refuse(431, "the header is too long; at most " +
                               std::to_string(options.max_header_bytes) + " bytes are allowed");
    }
    co_return false;
  }
  busy_.emplace(context_->requests);
  service_ = context_->service.load();
  const auto& header = parser.get();
  set_request_id(header[kRequestId]);
  set_trace(header);
  common_headers_ += context_->cors.headers(header[http::field::origin]);
  if (Status status = admit(header); !status.ok()) {
    // Before its body: who may not ask need not send it, and a refusal needs no memory for it.
    request_.method(header.method());
    request_.target(header.target());
    co_await refuse(std::move(status));
    co_return false;
  }
  co_return co_await read_body(parser);
}

HttpSession::Awaitable<bool> HttpSession::read_body(
    http::request_parser<http::string_body>& parser) {
  const ServerConfig::Http& options = context_->options;
  if (service_ == nullptr && !parser.is_done()) {
    co_await refuse(still_loading());
    co_return false;
  }
  if (service_ != nullptr) body_share_.emplace(service_->budget());
  const auto expect = parser.get()[http::field::expect];
  if (!expect.empty()) {
    if (!boost::beast::iequals(expect, "100-continue")) {
      co_await refuse(417, "only \"Expect: 100-continue\" is supported");
      co_return false;
    }
    static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    if (!parser.is_done() && !co_await write(asio::buffer(kContinue))) co_return false;
  }
  arm(std::chrono::seconds(options.body_timeout_seconds));
  parser.eager(true);
  error_code error;
  while (!error && !parser.is_done()) {
    const auto [read_error, bytes] = co_await http::async_read_some(socket_, buffer_, parser, kUse);
    error = read_error;
    if (body_share_->resize(parser.get().body().size())) continue;
    disarm();
    co_await refuse(service_->over_budget());
    co_return false;
  }
  disarm();
  if (error) {
    const int status = status_of_read_error(error, timed_out_, true);
    if (status == 408) co_await refuse(408, "the request's body did not arrive in time");
    if (status == 400) co_await refuse(400, "the body is not valid HTTP: " + error.message());
    if (status == 431) co_await refuse(431, "a chunk's extension or the trailer is too long");
    if (status == 413) {
      co_await refuse(413, "the body is too long; at most " +
                               std::to_string(options.max_body_bytes) + " bytes are allowed");
    }
    co_return false;
  }
  keep_alive_ = parser.get().keep_alive() && !context_->draining.load() && !closing_;
  request_ = parser.release();
  co_return true;
}

void HttpSession::set_request_id(std::string_view offered) {
  request_id_ = request_id(offered);
  trace_ = {};
  common_headers_ = std::string(kRequestId) + ": " + request_id_ + "\r\n";
}

/// Several of the header make no valid one.
void HttpSession::set_trace(const http::fields& header) {
  if (header.count(kTraceParent) == 1) trace_ = trace_context(header[kTraceParent]);
  if (!trace_.empty()) common_headers_ += "traceresponse: " + trace_.response() + "\r\n";
}

/// Answers what is not a request, and closes.
HttpSession::Awaitable<void> HttpSession::refuse(int status, std::string message) {
  keep_alive_ = false;
  co_await respond(status, error_body(status, message));
  log_event(LogLevel::info, "refused",
            {{"request_id", request_id_}, {"status", std::int64_t{status}}, {"reason", message}});
}

/// Answers a request whose body is not read, and closes: the body may be on its way.
HttpSession::Awaitable<void> HttpSession::refuse(Status status) {
  keep_alive_ = false;
  if (service_ != nullptr) service_->refused(status.code());
  const int code = http_status_of(status.code());
  std::string headers = retry_header(status);
  if (code == 401) headers += "WWW-Authenticate: Bearer\r\n";
  co_await respond(code, error_body(status), headers);
  log_event(LogLevel::info, "refused",
            {{"request_id", request_id_},
             {"key", key_name(account_)},
             {"method", request_.method_string()},
             {"target", brief_text(path_of(request_.target()), 128)},
             {"status", std::int64_t{code}},
             {"trace_id", unless_empty(trace_.trace_id)},
             {"parent_id", unless_empty(trace_.parent_id)},
             {"span_id", unless_empty(trace_.span_id)},
             {"reason", status.message()}});
}

HttpSession::Awaitable<void> HttpSession::respond(int status, std::string body,
                                                  std::string_view extra_header,
                                                  std::string_view content_type) {
  status_ = status;
  // A connection that is told to close stays closed, also if draining began after the header.
  if (context_->draining.load()) keep_alive_ = false;
  std::string text = "HTTP/1.1 " + std::to_string(status) + ' ';
  text += std::string_view(http::obsolete_reason(static_cast<http::status>(status)));
  text.append("\r\nContent-Type: ").append(content_type);
  text += "\r\nContent-Length: " + std::to_string(body.size());
  text += keep_alive_ ? "\r\nConnection: keep-alive\r\n" : "\r\nConnection: close\r\n";
  text.append(common_headers_).append(extra_header).append("\r\n");
  if (request_.method() != http::verb::head) text += body;
  co_await write(asio::buffer(text));
}

/// Writes all of it. False when the client is gone or does not read.
HttpSession::Awaitable<bool> HttpSession::write(asio::const_buffer data) {
  arm(std::chrono::seconds(context_->options.write_timeout_seconds));
  const auto [error, bytes] = co_await asio::async_write(socket_, data, kUse);
  disarm();
  if (error) {
    disconnected_ = true;
    keep_alive_ = false;
  }
  co_return !error;
}

/// Closes so that the last answer arrives: a socket closed with unread bytes resets the connection,
/// and the client may lose what it has not read.
HttpSession::Awaitable<void> HttpSession::linger() {
  arm(std::chrono::seconds(2));
  if (HttpStream::TlsStream* const tls = socket_.tls(); tls != nullptr) {
    // Says that nothing follows, without which an answer could have been cut off by anybody. What
    // the client says to that does not matter.
    co_await tls->async_shutdown(kUse);
  }
  HttpStream::Socket& socket = socket_.socket();
  error_code error;
  socket.shutdown(asio::ip::tcp::socket::shutdown_send, error);
  buffer_.clear();
  while (!error && !timed_out_ && !closing_) {
    const auto [read_error, bytes] = co_await socket.async_read_some(buffer_.prepare(4096), kUse);
    error = read_error;
  }
}

/// Cancels the socket's operations if `disarm` or another `arm` does not come first.
void HttpSession::arm(std::chrono::seconds timeout) {
  timed_out_ = false;
  ++deadline_generation_;
  await_deadline(timeout);
}

void HttpSession::await_deadline(Clock::duration timeout) {
  deadline_.expires_after(timeout);
  deadline_.async_wait(
      [weak = weak_from_this(), generation = deadline_generation_](const error_code& error) {
        const auto self = weak.lock();
        if (error || self == nullptr || generation != self->deadline_generation_) return;
        self->timed_out_ = true;
        error_code ignored;
        self->socket_.socket().cancel(ignored);
        // Again until it is heard: an operation of several parts may just be between two of them.
        self->await_deadline(std::chrono::milliseconds(100));
      });
}

void HttpSession::disarm() {
  ++deadline_generation_;
  deadline_.cancel();
}

}  // namespace mobius
