#include "server/http/http_server.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <stdexcept>
#include <thread>
#include <vector>

#include "server/http/http_context.h"
#include "server/log.h"

namespace mobius {

namespace asio = boost::asio;
using tcp = asio::ip::tcp;

struct HttpServer::Impl {
  explicit Impl(const HttpOptions& options)
      : io(static_cast<int>(options.http.threads)),
        work(asio::make_work_guard(io)),
        acceptor(asio::make_strand(io)),
        context(std::make_shared<HttpContext>(options, parsers, token_work)) {}

  void listen() {
    const ServerConfig::Http& options = context->options;
    boost::system::error_code error;
    const tcp::endpoint endpoint(asio::ip::make_address(options.address),
                                 static_cast<std::uint16_t>(options.port));
    acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) {
      throw std::runtime_error("http.port: cannot listen on " + options.address + " port " +
                               std::to_string(options.port) + ": " + error.message());
    }
    port = acceptor.local_endpoint().port();
  }

  asio::awaitable<void> accept() {
    while (acceptor.is_open()) {
      tcp::socket socket(asio::make_strand(io));
      const auto [error] =
          co_await acceptor.async_accept(socket, asio::as_tuple(asio::use_awaitable));
      if (error == asio::error::operation_aborted || !acceptor.is_open()) co_return;
      if (error) {
        // Out of file descriptors, usually: wait for some to come back instead of spinning.
        log_event(LogLevel::warn, "accept_failed", {{"error", error.message()}});
        asio::steady_timer pause(acceptor.get_executor(), std::chrono::milliseconds(100));
        co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
        continue;
      }
      std::size_t open = 0;
      {
        const std::lock_guard lock(context->mutex);
        open = context->sessions.size();
      }
      if (open >= static_cast<std::size_t>(context->options.max_connections))
        continue;  // closes it
      try {
        start_http_session(context, std::move(socket));
      } catch (const std::exception& failure) {
        // That connection is closed; others can still come.
        log_event(LogLevel::error, "http_session_failed", {{"error", failure.what()}});
      }
    }
  }

  /// What a library throws inside an operation ends that operation's session, and nothing else.
  void run() {
    while (true) {
      try {
        io.run();
        return;
      } catch (const std::exception& failure) {
        log_event(LogLevel::error, "http_session_failed", {{"error", failure.what()}});
      }
    }
  }

  asio::io_context io;
  asio::executor_work_guard<asio::io_context::executor_type> work;
  tcp::acceptor acceptor;
  // Posts to io, so it ends before it, and after io's threads, which post to it.
  WorkerPool parsers{1, 4096};
  WorkerPool token_work{1, 64};
  std::shared_ptr<HttpContext> context;
  std::uint16_t port = 0;
  std::vector<std::thread> threads;
};

HttpServer::HttpServer(const HttpOptions& options) : impl_(std::make_unique<Impl>(options)) {
  impl_->listen();
  asio::co_spawn(impl_->acceptor.get_executor(), impl_->accept(), asio::detached);
  for (std::int64_t i = 0; i < options.http.threads; ++i) {
    impl_->threads.emplace_back([impl = impl_.get()] { impl->run(); });
  }
}

HttpServer::~HttpServer() {
  stop_accepting();
  close_http_sessions(*impl_->context, /*now=*/true);
  // Sessions end by themselves now; the threads leave when the last one has.
  impl_->work.reset();
  for (std::thread& thread : impl_->threads) thread.join();
}

void HttpServer::serve(GenerationService& service) {
  impl_->context->service.store(&service);
}

std::uint16_t HttpServer::port() const {
  return impl_->port;
}

void HttpServer::stop_accepting() {
  if (impl_->context->draining.exchange(true)) return;
  asio::post(impl_->acceptor.get_executor(), [impl = impl_.get()] {
    boost::system::error_code ignored;
    impl->acceptor.close(ignored);
  });
  close_http_sessions(*impl_->context, /*now=*/false);
}

bool HttpServer::wait_idle(std::chrono::steady_clock::time_point deadline) {
  while (impl_->context->requests.load() > 0) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

}  // namespace mobius
