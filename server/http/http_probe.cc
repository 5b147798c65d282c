#include "server/http/http_probe.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
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

/// The first line of the answer, or less if the other side ends or takes too long.
std::string first_line(int fd) {
  std::string text;
  std::array<char, 256> piece{};
  while (text.find("\r\n") == std::string::npos && text.size() < 1024) {
    const ssize_t count = recv(fd, piece.data(), piece.size(), 0);
    if (count <= 0) break;
    text.append(piece.data(), static_cast<std::size_t>(count));
  }
  return text.substr(0, text.find("\r\n"));
}

}  // namespace

std::string probe_http(const ServerConfig::Http& config, std::string_view path,
                       std::chrono::seconds limit) {
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
  // A request this short goes into the socket's buffer at once or not at all.
  if (send(socket.fd, request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size())) {
    return failure(at, "cannot send");
  }
  const std::string line = first_line(socket.fd);
  if (line.starts_with("HTTP/1.1 200 ")) return {};
  return at + std::string(path) + ": " + (line.empty() ? "no answer" : brief_text(line));
}

}  // namespace mobius
