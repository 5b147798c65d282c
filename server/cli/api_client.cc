#include "server/cli/api_client.h"

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <stdexcept>
#include <utility>

#include "server/cli/event_stream.h"
#include "server/http/http_stream.h"

namespace mobius {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

namespace {

constexpr auto kUse = asio::as_tuple(asio::use_awaitable);

/// An error that is no stream: its body is kept for its message, up to here.
constexpr std::size_t kMostErrorBody = std::size_t{64} << 10U;

}  // namespace

/// One connection to the server.
struct ApiClient::Connection : std::enable_shared_from_this<ApiClient::Connection> {
  HttpStream stream;
  asio::ip::tcp::resolver resolver;
  boost::beast::flat_buffer buffer;
  asio::steady_timer timer;
  bool timed_out = false;
  bool aborted = false;
  bool used = false;      // it has carried a request before
  bool answered = false;  // the header of an answer has come
  bool reusable = false;

  Connection(asio::io_context& context, SSL_CTX* tls)
      : stream(asio::ip::tcp::socket(context), tls), resolver(context), timer(context) {}

  void close() {
    error_code ignored;
    resolver.cancel();
    stream.socket().close(ignored);
  }
  /// Closes when `limit` has passed, unless called again or `disarm` before.
  void arm(std::chrono::seconds limit) {
    if (limit.count() == 0) return;
    timer.expires_after(limit);
    timer.async_wait([weak = weak_from_this()](const error_code& error) {
      const auto self = weak.lock();
      // A wait that was over before it could be cancelled belongs to an earlier limit.
      if (error || !self || self->timer.expiry() > asio::steady_timer::clock_type::now()) return;
      self->timed_out = true;
      self->close();
    });
  }
  void disarm() { timer.expires_at(asio::steady_timer::time_point::max()); }

  std::string failure(std::string_view doing, const error_code& error) const {
    if (aborted) return "stopped";
    if (timed_out) return std::string(doing) + ": no sign of life for too long";
    return std::string(doing) + ": " + error.message();
  }
};

ApiClient::ApiClient(asio::io_context& context, ApiOptions options)
    : context_(context), options_(std::move(options)) {
  const auto bad = [](char c) { return c <= 0x20 || c == 0x7F; };
  if (std::ranges::any_of(options_.key, bad)) {
    throw std::runtime_error("the API key contains blanks or control characters");
  }
  if (!options_.url.tls) return;
  tls_ = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_client);
  SSL_CTX_set_min_proto_version(tls_->native_handle(), TLS1_2_VERSION);
  tls_->set_default_verify_paths();
  error_code error;
  if (!options_.ca.empty()) tls_->load_verify_file(options_.ca, error);
  if (error) throw std::runtime_error(options_.ca + ": holds no certificates: " + error.message());
  tls_->set_verify_mode(asio::ssl::verify_peer);
}

ApiClient::~ApiClient() = default;

std::string ApiClient::request_text(const std::string& path, const std::string& body) const {
  std::string text = body.empty() ? "GET " : "POST ";
  text.append(options_.url.base).append(path).append(" HTTP/1.1\r\nHost: ");
  text += options_.url.authority();
  text += "\r\nUser-Agent: mobius\r\nAccept: */*\r\n";
  if (!options_.key.empty()) text += "Authorization: Bearer " + options_.key + "\r\n";
  if (!body.empty()) {
    text += "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size());
    text += "\r\n";
  }
  return text + "\r\n" + body;
}

/// Empty, or why there is no connection.
asio::awaitable<std::string> ApiClient::open(Connection& connection) {
  const ServerUrl& url = options_.url;
  const std::string at = url.authority();
  connection.arm(options_.silence);
  const auto [unknown, endpoints] =
      co_await connection.resolver.async_resolve(url.host, url.port, kUse);
  if (unknown) co_return connection.failure(at, unknown);
  asio::ip::tcp::socket& socket = connection.stream.socket();
  const auto [unreachable, endpoint] = co_await asio::async_connect(socket, endpoints, kUse);
  if (unreachable) co_return connection.failure(at, unreachable);
  error_code ignored;
  socket.set_option(asio::ip::tcp::no_delay(true), ignored);
  HttpStream::TlsStream* const tls = connection.stream.tls();
  if (tls == nullptr) co_return std::string();
  SSL_set_tlsext_host_name(tls->native_handle(), url.host.c_str());
  tls->set_verify_callback(asio::ssl::host_name_verification(url.host));
  const auto [refused] = co_await tls->async_handshake(asio::ssl::stream_base::client, kUse);
  co_return refused ? connection.failure(at + ": TLS", refused) : std::string();
}

asio::awaitable<ApiReply> ApiClient::exchange(Connection& connection, const std::string& request,
                                              const OnData& on_data) {
  const std::string at = options_.url.authority();
  ApiReply reply;
  connection.arm(options_.silence);
  const auto [unsent, sent] =
      co_await asio::async_write(connection.stream, asio::buffer(request), kUse);
  // A server may answer, and close, before it has read all: what it says is worth more.
  http::response_parser<http::buffer_body> parser;
  parser.header_limit(64U << 10U);
  parser.body_limit(boost::none);
  connection.arm(options_.silence);
  const auto [unread, header_bytes] =
      co_await http::async_read_header(connection.stream, connection.buffer, parser, kUse);
  if (unread) {
    reply.error = connection.failure(at, unsent ? unsent : unread);
    co_return reply;
  }
  connection.answered = true;
  reply.status = static_cast<int>(parser.get().result_int());
  const bool good = reply.status == 200;
  std::array<char, 16384> piece{};
  while (!parser.is_done()) {
    parser.get().body().data = piece.data();
    parser.get().body().size = piece.size();
    connection.arm(options_.silence);
    auto [error, bytes] =
        co_await http::async_read_some(connection.stream, connection.buffer, parser, kUse);
    const std::string_view got(piece.data(), piece.size() - parser.get().body().size);
    if (good && on_data && !got.empty()) {
      on_data(got);
    } else if (good || reply.body.size() < kMostErrorBody) {
      reply.body += got;
    }
    if (error && error != http::error::need_buffer) {
      reply.error = connection.failure("the answer broke off", error);
      co_return reply;
    }
  }
  connection.reusable = parser.get().keep_alive();
  if (!good) {
    reply.error = "HTTP " + std::to_string(reply.status) + ": " + error_message(reply.body);
  }
  co_return reply;
}

asio::awaitable<ApiReply> ApiClient::send(std::string path, std::string body, OnData on_data) {
  const std::string request = request_text(path, body);
  while (true) {
    std::shared_ptr<Connection> connection;
    if (!idle_.empty()) {
      connection = std::move(idle_.back());
      idle_.pop_back();
    } else {
      connection = std::make_shared<Connection>(context_, tls_ ? tls_->native_handle() : nullptr);
    }
    std::erase_if(busy_, [](const auto& weak) { return weak.expired(); });
    busy_.push_back(connection);
    ApiReply reply;
    if (!connection->used) reply.error = co_await open(*connection);
    if (reply.error.empty()) reply = co_await exchange(*connection, request, on_data);
    connection->disarm();
    std::erase_if(busy_, [&](const auto& weak) { return weak.lock() == connection; });
    // A kept connection may have been closed by the server meanwhile: no answer is lost then.
    const bool stale =
        connection->used && !connection->answered && !connection->aborted && !connection->timed_out;
    if (stale) continue;
    if (connection->reusable && !connection->aborted) {
      connection->used = true;
      connection->answered = connection->reusable = false;
      idle_.push_back(std::move(connection));
    }
    co_return reply;
  }
}

void ApiClient::abort() {
  for (const auto& weak : busy_) {
    const auto connection = weak.lock();
    if (connection == nullptr) continue;
    connection->aborted = true;
    connection->close();
  }
}

}  // namespace mobius
