#pragma once

#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <mutex>
#include <unordered_set>

#include "server/generation_service.h"
#include "server/http/http_cors.h"
#include "server/http/http_server.h"
#include "server/worker_pool.h"

namespace mobius {

class HttpSession;

/// What all connections of an HttpServer share.
struct HttpContext {
  HttpContext(const HttpOptions& chosen, WorkerPool& parser_pool, WorkerPool& token_pool)
      : options(chosen.http),
        metrics_need_key(chosen.metrics_need_key),
        cors(chosen.http.cors_origins),
        keys(chosen.keys),
        certificates(chosen.certificates),
        parsers(parser_pool),
        token_work(token_pool) {}

  const ServerConfig::Http options;
  const bool metrics_need_key;
  const CorsPolicy cors;
  const KeyStore& keys;
  const Certificates& certificates;
  /// nullptr until there is a model: whoever answers a request asks once, and sticks to it.
  std::atomic<GenerationService*> service = nullptr;
  /// Parses large bodies, so that the threads that answer /health do not have to. The server's: a
  /// session may own the last reference to this context, on any thread.
  WorkerPool& parsers;
  /// Tokenizes for those who want tokens and no answer: nobody's generation waits behind them.
  WorkerPool& token_work;
  std::atomic<bool> draining = false;
  std::atomic<int> requests = 0;  ///< being read (from the end of the header on) or answered

  std::mutex mutex;
  std::unordered_set<HttpSession*> sessions;  ///< open connections
};

/// Serves one connection until it closes; returns at once. `socket`'s executor must be a strand.
void start_http_session(std::shared_ptr<HttpContext> context, boost::asio::ip::tcp::socket socket);

/// Asks every session to close: idle ones now, the others after the answer to what they have begun
/// to send, or all of them now.
void close_http_sessions(HttpContext& context, bool now);

}  // namespace mobius
