#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/cli/server_url.h"

namespace mobius {

struct ApiOptions {
  ServerUrl url;
  std::string key;  ///< sent as `Authorization: Bearer`; empty: none
  std::string ca;   ///< file of authorities to trust beside the system's; empty: none
  /// Longest wait for a connection, or for the next bytes of an answer; 0: no limit.
  std::chrono::seconds silence{0};
};

/// An answer, or why there is none.
struct ApiReply {
  int status = 0;     ///< 0: no answer came
  std::string error;  ///< empty: a status of 200 and all of the body; else one line
  std::string body;   ///< unless it went to `on_data`
};

/// Talks HTTP/1.1 to one server, over as many connections as requests are under way; those are kept
/// for later requests. Everything on the io_context's one thread.
class ApiClient {
 public:
  using OnData = std::function<void(std::string_view)>;

  /// Throws std::runtime_error for options that cannot work. `context` must outlive this.
  ApiClient(boost::asio::io_context& context, ApiOptions options);
  ~ApiClient();
  ApiClient(const ApiClient&) = delete;
  ApiClient& operator=(const ApiClient&) = delete;

  /// One request; with a `body` it is a POST. `path` comes after the URL's base. `on_data` gets the
  /// pieces of an answer with status 200 as they arrive; what it throws ends the request and comes
  /// out here.
  boost::asio::awaitable<ApiReply> send(std::string path, std::string body, OnData on_data = {});

  /// Breaks off what is under way, which then ends with an error. Later requests work.
  void abort();

 private:
  struct Connection;
  boost::asio::awaitable<std::string> open(Connection& connection);
  boost::asio::awaitable<ApiReply> exchange(Connection& connection, const std::string& request,
                                            const OnData& on_data);
  std::string request_text(const std::string& path, const std::string& body) const;

  boost::asio::io_context& context_;
  ApiOptions options_;
  std::unique_ptr<boost::asio::ssl::context> tls_;
  std::vector<std::shared_ptr<Connection>> idle_;
  std::vector<std::weak_ptr<Connection>> busy_;
};

}  // namespace mobius
