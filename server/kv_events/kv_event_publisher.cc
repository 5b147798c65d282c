#include "server/kv_events/kv_event_publisher.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <deque>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>
#include <zmq.hpp>

#include "server/kv_events/kv_event_message.h"
#include "server/log.h"

namespace mobius {
namespace {

/// Messages that wait for one subscriber; ZeroMQ drops what comes then.
constexpr int kMostUnsent = 100000;
/// Batches that wait for the thread.
constexpr std::size_t kMostWaiting = 10000;
constexpr std::chrono::milliseconds kLinger{500};
/// A request for a replay has a few bytes; whoever sends more is disconnected.
constexpr std::int64_t kLongestRequest = 4096;
constexpr std::int64_t kEndOfReplay = -1;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

zmq::const_buffer buffer_of(const std::string& bytes) {
  return zmq::buffer(bytes);
}

/// Another reference to the same bytes.
zmq::message_t shared(zmq::message_t& message) {
  zmq::message_t copy;
  copy.copy(message);
  return copy;
}

/// Wakes a thread that polls.
class Bell {
 public:
  Bell() : file_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (file_ < 0) throw std::runtime_error("kv_events: no eventfd is to be had");
  }
  ~Bell() { close(file_); }
  Bell(const Bell&) = delete;
  Bell& operator=(const Bell&) = delete;

  int file() const { return file_; }
  void ring() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = write(file_, &one, sizeof one);
  }
  void clear() const {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = read(file_, &count, sizeof count);
  }

 private:
  int file_;
};

}  // namespace

class KvEventPublisher::Impl {
 public:
  explicit Impl(const KvEventOptions& options)
      : options_(options),
        publisher_(context_, zmq::socket_type::pub),
        replay_(context_, zmq::socket_type::router) {
    publisher_.set(zmq::sockopt::sndhwm, kMostUnsent);
    publisher_.set(zmq::sockopt::linger, static_cast<int>(kLinger.count()));
    replay_.set(zmq::sockopt::linger, 0);
    replay_.set(zmq::sockopt::maxmsgsize, kLongestRequest);
    // A replay is sent faster than any client takes it: all of it and its end have to fit, and
    // another one behind it. What waits for slow clients are references: the bytes of a batch are
    // there once.
    replay_.set(zmq::sockopt::sndhwm, static_cast<int>(2 * (options.buffer_batches + 1)));
    bind(publisher_, "kv_events.endpoint", options.endpoint);
    if (!options.replay_endpoint.empty()) {
      bind(replay_, "kv_events.replay_endpoint", options.replay_endpoint);
    }
    endpoint_ = publisher_.get(zmq::sockopt::last_endpoint);
    if (!options.replay_endpoint.empty()) {
      replay_endpoint_ = replay_.get(zmq::sockopt::last_endpoint);
    }
    bell_.ring();  // for batch 0
    thread_ = std::thread([this] { run(); });
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    bell_.ring();
    thread_.join();
  }

  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void publish(std::vector<CacheEvent> events) {
    {
      const std::lock_guard lock(mutex_);
      // The number is spent all the same, so that the loss shows.
      if (waiting_.size() >= kMostWaiting) {
        ++next_number_;
        return;
      }
      waiting_.push_back({next_number_++, std::move(events), seconds_now()});
    }
    bell_.ring();
  }

  const std::string& endpoint() const { return endpoint_; }
  const std::string& replay_endpoint() const { return replay_endpoint_; }

 private:
  struct Batch {
    std::int64_t number;
    std::vector<CacheEvent> events;  // none: everything is cleared
    double seconds;
  };
  struct Sent {
    std::int64_t number;
    zmq::message_t message;
  };

  static void bind(zmq::socket_t& socket, const char* key, const std::string& endpoint) {
    try {
      socket.bind(endpoint);
    } catch (const zmq::error_t& error) {
      throw std::runtime_error(std::string(key) + ": \"" + endpoint +
                               "\" cannot be bound: " + error.what());
    }
  }

  void run() {
    std::array<zmq::pollitem_t, 2> items{
        {{nullptr, bell_.file(), ZMQ_POLLIN, 0}, {replay_.handle(), 0, ZMQ_POLLIN, 0}}};
    bool stop = false;
    while (!stop) {
      try {
        zmq::poll(items.data(), items.size(), std::chrono::milliseconds{-1});
        bell_.clear();
        std::deque<Batch> batches;
        {
          const std::lock_guard lock(mutex_);
          batches.swap(waiting_);
          stop = stop_;
        }
        for (const Batch& batch : batches) send(batch);
        if ((items[1].revents & ZMQ_POLLIN) != 0) answer();
      } catch (const zmq::error_t& error) {
        if (error.num() == EINTR) continue;
        log_event(LogLevel::error, "kv_events_failed", {{"error", error.what()}});
        return;
      }
    }
  }

  void send(const Batch& batch) {
    const std::string text =
        batch.events.empty() ? kv_cleared_message(batch.seconds)
                             : kv_event_message(batch.events, options_.page_tokens, batch.seconds);
    publisher_.send(buffer_of(options_.topic), zmq::send_flags::sndmore);
    publisher_.send(buffer_of(kv_event_number(batch.number)), zmq::send_flags::sndmore);
    zmq::message_t message(text);
    publisher_.send(shared(message), zmq::send_flags::none);
    if (options_.replay_endpoint.empty()) return;
    sent_.push_back({batch.number, std::move(message)});
    if (sent_.size() > options_.buffer_batches) sent_.pop_front();
  }

  /// One request for a replay. What is not one is passed over.
  void answer() {
    std::vector<zmq::message_t> parts;
    do {
      parts.emplace_back();
      if (!replay_.recv(parts.back(), zmq::recv_flags::none)) return;
    } while (parts.back().more());
    if (parts.size() != 3 || parts[1].size() != 0) return;
    const std::int64_t from = parse_kv_event_number(parts[2].to_string_view());
    if (from < 0) return;
    const std::string client = parts[0].to_string();
    for (Sent& sent : sent_) {
      if (sent.number >= from) reply(client, sent.number, shared(sent.message));
    }
    reply(client, kEndOfReplay, {});
  }

  void reply(const std::string& client, std::int64_t number, zmq::message_t message) {
    // A ROUTER drops what a client that does not read leaves no room for.
    replay_.send(buffer_of(client), zmq::send_flags::sndmore);
    replay_.send(zmq::const_buffer(), zmq::send_flags::sndmore);
    replay_.send(buffer_of(kv_event_number(number)), zmq::send_flags::sndmore);
    replay_.send(std::move(message), zmq::send_flags::none);
  }

  const KvEventOptions options_;
  const Bell bell_;
  zmq::context_t context_;
  zmq::socket_t publisher_;  // the thread's, once it runs; as the next two
  zmq::socket_t replay_;
  std::deque<Sent> sent_;
  std::string endpoint_;
  std::string replay_endpoint_;
  std::mutex mutex_;
  std::deque<Batch> waiting_{{0, {}, seconds_now()}};
  std::int64_t next_number_ = 1;
  bool stop_ = false;
  std::thread thread_;
};

KvEventPublisher::KvEventPublisher(const KvEventOptions& options)
    : impl_(std::make_unique<Impl>(options)) {}

KvEventPublisher::~KvEventPublisher() = default;

void KvEventPublisher::publish(std::vector<CacheEvent> events) {
  impl_->publish(std::move(events));
}

std::string KvEventPublisher::endpoint() const {
  return impl_->endpoint();
}

std::string KvEventPublisher::replay_endpoint() const {
  return impl_->replay_endpoint();
}

}  // namespace mobius
