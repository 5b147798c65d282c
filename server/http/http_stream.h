#pragma once

#include <openssl/ssl.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <utility>
#include <variant>

namespace mobius {

/// A connection, encrypted or not: what Asio and Beast ask of a stream, and the socket below. One
/// read and one write may be pending at a time.
class HttpStream {
 public:
  using Socket = boost::asio::ip::tcp::socket;
  using TlsStream = boost::asio::ssl::stream<Socket>;
  using executor_type = Socket::executor_type;

  /// `tls` is not kept; nullptr: without encryption.
  HttpStream(Socket socket, SSL_CTX* tls) : stream_(make(std::move(socket), tls)) {}

  executor_type get_executor() { return socket().get_executor(); }
  Socket& socket() {
    auto* stream = tls();
    return stream != nullptr ? stream->next_layer() : std::get<Socket>(stream_);
  }
  /// nullptr: without encryption.
  TlsStream* tls() { return std::get_if<TlsStream>(&stream_); }

  template <typename Buffers, typename Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    auto* stream = tls();
    return stream != nullptr ? stream->async_read_some(buffers, std::forward<Token>(token))
                             : socket().async_read_some(buffers, std::forward<Token>(token));
  }
  template <typename Buffers, typename Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    auto* stream = tls();
    return stream != nullptr ? stream->async_write_some(buffers, std::forward<Token>(token))
                             : socket().async_write_some(buffers, std::forward<Token>(token));
  }

 private:
  using Stream = std::variant<Socket, TlsStream>;

  static Stream make(Socket socket, SSL_CTX* tls) {
    if (tls == nullptr) return socket;
    // The wrapper owns one reference; the stream takes its own.
    SSL_CTX_up_ref(tls);
    boost::asio::ssl::context context(tls);
    return TlsStream(std::move(socket), context);
  }

  Stream stream_;
};

}  // namespace mobius
