#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/http/http_context.h"
#include "server/http/http_stream.h"
#include "server/http/openai_request.h"
#include "server/http/openai_response.h"
#include "server/http/responses_writer.h"

namespace mobius {

/// Counts a request for as long as it lives.
class RequestCount {
 public:
  explicit RequestCount(std::atomic<int>& count) : count_(count) { count_.fetch_add(1); }
  ~RequestCount() { count_.fetch_sub(1); }
  RequestCount(const RequestCount&) = delete;
  RequestCount& operator=(const RequestCount&) = delete;

 private:
  std::atomic<int>& count_;
};

/// One connection: reads requests one after the other and answers them in order. Everything runs
/// on the socket's strand; other threads only post to it.
class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  using Request = boost::beast::http::request<boost::beast::http::string_body>;
  using Clock = std::chrono::steady_clock;
  template <typename T>
  using Awaitable = boost::asio::awaitable<T>;

  /// Makes the body of an answer about tokens.
  using TokenAnswer = StatusOr<std::string> (*)(const GenerationService&, std::string_view body);

  HttpSession(std::shared_ptr<HttpContext> context, HttpStream socket);
  ~HttpSession();
  HttpSession(const HttpSession&) = delete;
  HttpSession& operator=(const HttpSession&) = delete;

  Awaitable<void> run();
  /// From any thread: close now, or as soon as no request is being read or answered.
  void close(bool now);

 private:
  // http_session.cc: the connection
  Awaitable<bool> shake_hands();
  Awaitable<bool> read_request();
  Awaitable<bool> read_body(boost::beast::http::request_parser<boost::beast::http::string_body>&);
  Awaitable<void> refuse(int status, std::string message);
  Awaitable<void> refuse(Status status);
  Awaitable<void> answer();
  Awaitable<void> respond(int status, std::string body, std::string_view extra_header = {},
                          std::string_view content_type = "application/json");
  Awaitable<bool> write(boost::asio::const_buffer data);
  Awaitable<void> linger();
  void set_request_id(std::string_view offered);
  void set_trace(const boost::beast::http::fields& header);
  void close_now();
  void arm(std::chrono::seconds timeout);
  void await_deadline(Clock::duration timeout);
  void disarm();

  // http_routes.cc: who may have an answer, and which
  Status admit(const boost::beast::http::request_header<>& header);
  Caller caller() const;
  Awaitable<void> route();
  Awaitable<void> generate(OpenAiEndpoint endpoint);

  // http_tokens.cc: text to tokens and back
  Awaitable<void> answer_tokens(TokenAnswer make);

  // http_generation.cc: one request's generations, streamed or whole
  struct Job;
  Awaitable<void> parse(std::shared_ptr<Job> job, OpenAiEndpoint endpoint);
  Awaitable<void> start(std::shared_ptr<Job> job);
  Awaitable<void> run_job(std::shared_ptr<Job> job);
  template <typename Writer>
  Awaitable<void> stream_answer(std::shared_ptr<Job> job, Writer& writer);
  template <typename Writer>
  Awaitable<void> collect_answer(std::shared_ptr<Job> job, Writer& writer);
  Awaitable<void> await_end(std::shared_ptr<Job> job);
  void listen(const Job& job);
  Awaitable<bool> wait(Clock::duration timeout);
  void watch();
  Awaitable<void> stop_watching();
  void wake();

  std::shared_ptr<HttpContext> context_;
  HttpStream socket_;
  /// What has been read and not parsed. Beast's parser reads on until a header or a trailer is
  /// whole, and throws on a field of more than 64 KiB: neither fits.
  static constexpr std::size_t kMaxBuffer = std::size_t{60} << 10U;
  boost::beast::flat_buffer buffer_{kMaxBuffer};

  boost::asio::steady_timer deadline_;  // cancels the socket's operations when it expires
  std::uint64_t deadline_generation_ = 0;
  bool timed_out_ = false;

  // The request being answered.
  Request request_;
  std::string request_id_;
  TraceContext trace_;
  std::string common_headers_;  // of every answer to it, lines with their ends
  std::shared_ptr<KeyAccount> account_;
  std::optional<Admission> admission_;  // where it counts as one of the account's
  bool keep_alive_ = false;
  bool closing_ = false;
  std::optional<RequestCount> busy_;  // while a request's body is read, and until it is answered
  GenerationService* service_ = nullptr;         // of this request; nullptr: still loading
  std::optional<ByteBudget::Share> body_share_;  // of the body, until it is the service's input
  int status_ = 0;                               // of the answer, for the log
  Clock::time_point started_;

  // While a generation runs: a pending read that notices a client that goes away.
  boost::asio::steady_timer wake_timer_;
  bool awake_ = false;
  boost::asio::cancellation_signal stop_watch_;
  bool watching_ = false;
  bool watch_wanted_ = false;
  bool disconnected_ = false;
};

}  // namespace mobius
