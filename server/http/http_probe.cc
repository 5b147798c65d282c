#include "server/http/http_probe.h"

#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>

#include "server/json.h"

namespace mobius {
namespace {

struct Socket {
  int fd;
  explicit Socket(int descriptor) : fd(descriptor) {}
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() {
    if (fd >= 0) close(fd);
  }
};

/// What can be connected to where `address` is listened on.
std::string reachable(const std::string& address) {
  if (address == "0.0.0.0") return "127.0.0.1";
  if (address == "::") return "::1";
  return address;
}

std::string failure(const std::string& at, std::string_view what) {
  return at + ": " + std::string(what) + ": " + std::strerror(errno);
}

struct Tls {
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context{nullptr, &SSL_CTX_free};
  std::unique_ptr<SSL, decltype(&SSL_free)> connection{nullptr, &SSL_free};
};

/// Empty if both sides agreed.
std::string shake_hands(Tls& tls, const ServerConfig::Tls& config, int fd) {
  tls.context.reset(SSL_CTX_new(TLS_client_method()));
  SSL_CTX* const context = tls.context.get();
  const bool ready =
      context != nullptr && SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
      (config.client_ca.empty() ||
       (SSL_CTX_use_certificate_chain_file(context, config.certificate.c_str()) == 1 &&
        SSL_CTX_use_PrivateKey_file(context, config.key.c_str(), SSL_FILETYPE_PEM) == 1));
  if (ready) tls.connection.reset(SSL_new(context));
  if (tls.connection != nullptr && SSL_set_fd(tls.connection.get(), fd) == 1 &&
      SSL_connect(tls.connection.get()) == 1) {
    return {};
  }
  const char* const reason = ERR_reason_error_string(ERR_peek_last_error());
  return std::string("TLS failed") + (reason != nullptr ? std::string(": ") + reason : "");
}

bool send_text(SSL* tls, int fd, std::string_view text) {
  // A request this short goes into the socket's buffer at once or not at all.
  const auto size = static_cast<int>(text.size());
  return tls != nullptr ? SSL_write(tls, text.data(), size) == size
                        : send(fd, text.data(), text.size(), MSG_NOSIGNAL) == size;
}

/// The first line of the answer, or less if the other side ends or takes too long.
std::string first_line(SSL* tls, int fd) {
  std::string text;
  std::array<char, 256> piece{};
  while (text.find("\r\n") == std::string::npos && text.size() < 1024) {
    const ssize_t count = tls != nullptr
                              ? SSL_read(tls, piece.data(), static_cast<int>(piece.size()))
                              : recv(fd, piece.data(), piece.size(), 0);
    if (count <= 0) break;
    text.append(piece.data(), static_cast<std::size_t>(count));
  }
  return text.substr(0, text.find("\r\n"));
}

}  // namespace

std::string probe_http(const ServerConfig::Http& config, const ServerConfig::Tls& tls_config,
                       std::string_view path, std::chrono::seconds limit) {
  const std::string at = authority(reachable(config.address), config.port);
  if (config.port == 0) return at + ": port 0 means any free one; which one is not known here";
  if (!path.starts_with('/') || path.find_first_of(" \r\n") != std::string_view::npos) {
    return brief_text(path) + ": must be a path such as /ready";
  }

  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(reachable(config.address).c_str(),
                                std::to_string(config.port).c_str(), &hints, &list);
  if (error != 0) return at + ": " + gai_strerror(error);
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> target(list, &freeaddrinfo);

  const Socket socket(::socket(target->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // Linux bounds connect by the time limit for sending.
  timeval time{};
  time.tv_sec = static_cast<time_t>(limit.count());
  if (socket.fd < 0 || setsockopt(socket.fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time) != 0 ||
      setsockopt(socket.fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) != 0) {
    return failure(at, "no socket");
  }
  if (connect(socket.fd, target->ai_addr, target->ai_addrlen) != 0) {
    return failure(at, "cannot connect");
  }
  std::string request = "GET ";
  request.append(path).append(" HTTP/1.1\r\nHost: ").append(at);
  request += "\r\nConnection: close\r\n\r\n";
  Tls tls;
  if (!tls_config.certificate.empty()) {
    // OpenSSL writes without MSG_NOSIGNAL.
    std::signal(SIGPIPE, SIG_IGN);
    const std::string problem = shake_hands(tls, tls_config, socket.fd);
    if (!problem.empty()) return at + ": " + problem;
  }
  SSL* const connection = tls.connection.get();
  if (!send_text(connection, socket.fd, request)) return failure(at, "cannot send");
  const std::string line = first_line(connection, socket.fd);
  if (line.starts_with("HTTP/1.1 200 ")) return {};
  return at + std::string(path) + ": " + (line.empty() ? "no answer" : brief_text(line));
}

}  // namespace mobius
