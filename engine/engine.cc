#include "engine/engine.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/step_loop.h"
#include "engine/validate.h"

namespace mobius {
namespace {

// What was thrown may hold addresses and paths: it is for the log, not for clients.
constexpr const char* kModelFailed = "the model failed; the server stops";

// Seconds. Whoever is told to wait longer than this does not come back.
constexpr double kLongestRetry = 600;

}  // namespace

struct Engine::Impl {
  // Before the thread starts and on it; nobody else touches these.
  std::unique_ptr<Runner> runner;
  std::shared_ptr<const Tokenizer> tokenizer;
  StepLoop loop;

  // Fixed at start, read by everybody. A copy: the runner is the engine thread's own.
  const RunnerInfo model;
  const std::int32_t max_context;
  const std::size_t max_unfinished;
  const std::int64_t max_waiting_tokens;

  // Shared, under the mutex.
  mutable std::mutex mutex;
  std::condition_variable wake;
  std::vector<Submission> inbox;
  std::int64_t inbox_tokens = 0;        // of the prompts in it
  std::size_t unfinished = 0;           // accepted, Finish not yet decided
  std::unordered_set<std::string> ids;  // of them
  EngineStats stats;
  bool draining = false;
  bool stopping = false;

  std::function<void(const std::string&)> on_failure;  // the engine thread's
  std::thread thread;

  Impl(const EngineOptions& options, std::unique_ptr<Runner> given_runner,
       std::shared_ptr<const Tokenizer> given_tokenizer)
      : runner(std::move(given_runner)),
        tokenizer(std::move(given_tokenizer)),
        loop(options, *runner, *tokenizer, [] { return std::chrono::steady_clock::now(); }),
        model(runner->info()),
        max_context(loop.max_context()),
        max_unfinished(static_cast<std::size_t>(loop.max_running()) +
                       static_cast<std::size_t>(options.max_waiting)),
        max_waiting_tokens(options.max_waiting_tokens),
        stats(loop.stats()),
        on_failure(options.on_failure) {
    thread = std::thread([this] { run(); });
  }

  ~Impl() {
    stop();
    thread.join();
  }

  void stop() {
    {
      const std::scoped_lock lock(mutex);
      stopping = true;
    }
    wake.notify_one();
  }

  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void run() {
    const Status bye(StatusCode::unavailable, "the server is shutting down");
    for (;;) {
      std::vector<Submission> arrivals;
      bool stop = false;
      {
        std::unique_lock lock(mutex);
        wake.wait(lock, [this] { return stopping || !inbox.empty() || !loop.idle(); });
        arrivals.swap(inbox);
        // Counted in the statistics from here on; the loop's own take over with the next ones.
        stats.waiting_tokens += std::exchange(inbox_tokens, 0);
        stop = stopping;
      }
      std::size_t added = 0;
      const auto rest = [&] { return std::span(arrivals).subspan(added); };
      try {
        if (!arrivals.empty()) loop.hand_out();
        while (added < arrivals.size()) loop.add(std::move(arrivals[added++]));
        if (!stop) loop.step();
      } catch (const std::exception& error) {
        fail(error.what(), rest());
      } catch (...) {
        fail("unknown exception", rest());
      }
      if (stop) loop.end_all(bye);
      publish();
      if (stop) return;
    }
  }

  // Nothing is accepted any more from here on, so ending what is there ends everything.
  void fail(const std::string& what, std::span<Submission> arrivals) {
    std::vector<Submission> late;
    {
      const std::scoped_lock lock(mutex);
      stats.healthy = false;
      late.swap(inbox);
      inbox_tokens = 0;
    }
    if (on_failure) on_failure(what);
    for (Submission& submission : arrivals) loop.add(std::move(submission));
    for (Submission& submission : late) loop.add(std::move(submission));
    loop.end_all({StatusCode::internal, kModelFailed});
  }

  // A request's Finish is pushed after its id and pages are free again, so whoever sees the end
  // also sees an engine without it.
  void publish() {
    std::vector<StepLoop::Ended> ended = loop.take_ended();
    {
      const std::scoped_lock lock(mutex);
      const bool healthy = stats.healthy;
      stats = loop.stats();
      stats.waiting += static_cast<std::int32_t>(inbox.size());
      stats.healthy = healthy;
      unfinished -= ended.size();
      for (const StepLoop::Ended& request : ended) ids.erase(request.id);
    }
    for (StepLoop::Ended& request : ended) request.stream->push(std::move(request.finish));
  }

  std::int64_t waiting_tokens() const { return stats.waiting_tokens + inbox_tokens; }

  // Until what waits is computed, at the speed of late.
  std::chrono::seconds retry_after() const {
    const double speed = stats.prompt_tokens_per_second;
    const double seconds = speed > 0 ? static_cast<double>(waiting_tokens()) / speed : 1;
    return std::chrono::seconds(std::llround(std::clamp(seconds, 1.0, kLongestRetry)));
  }

  // Under the mutex.
  Status admit(const GenerationRequest& request) const {
    if (!stats.healthy) return {StatusCode::unavailable, kModelFailed};
    if (draining || stopping) return {StatusCode::unavailable, "the server is shutting down"};
    if (!request.id.empty() && ids.contains(request.id)) {
      return Status::invalid(
          "id", "id is '" + request.id + "', must differ from those of unfinished requests");
    }
    if (unfinished >= max_unfinished) {
      return Status::exhausted("the queue is full: " + std::to_string(unfinished) +
                                   " requests are unfinished, must be at most " +
                                   std::to_string(max_unfinished),
                               retry_after());
    }
    const auto prompt = static_cast<std::int64_t>(request.prompt.size());
    const std::int64_t waiting = waiting_tokens();
    // Where nobody waits there is nothing to wait for: a longer prompt would never be taken.
    if (max_waiting_tokens > 0 && waiting > 0 && waiting + prompt > max_waiting_tokens) {
      return Status::exhausted("the queue is full: prompts of " + std::to_string(waiting) +
                                   " tokens wait, with this one's " + std::to_string(prompt) +
                                   " they must be at most " + std::to_string(max_waiting_tokens),
                               retry_after());
    }
    return {};
  }
};

Engine::Engine(const EngineOptions& options, std::unique_ptr<Runner> runner,
               std::shared_ptr<const Tokenizer> tokenizer) {
  if (runner == nullptr || tokenizer == nullptr) {
    throw std::invalid_argument("the engine needs a runner and a tokenizer");
  }
  impl_ = std::make_unique<Impl>(options, std::move(runner), std::move(tokenizer));
}

Engine::~Engine() = default;

StatusOr<std::shared_ptr<Stream>> Engine::submit(GenerationRequest request) {
  const TimePoint arrival = std::chrono::steady_clock::now();
  Status status = validate(request, impl_->model, impl_->max_context);
  if (!status.ok()) return status;
  auto stream = std::make_shared<Stream>();
  {
    const std::scoped_lock lock(impl_->mutex);
    status = impl_->admit(request);
    if (!status.ok()) return status;
    if (!request.id.empty()) impl_->ids.insert(request.id);
    const auto prompt = static_cast<std::int64_t>(request.prompt.size());
    impl_->inbox.push_back({std::move(request), stream, arrival});
    impl_->inbox_tokens += prompt;
    ++impl_->unfinished;
    ++impl_->stats.waiting;
  }
  impl_->wake.notify_one();
  return stream;
}

void Engine::drain() {
  const std::scoped_lock lock(impl_->mutex);
  impl_->draining = true;
}

void Engine::stop() {
  impl_->stop();
}

EngineStats Engine::stats() const {
  const std::scoped_lock lock(impl_->mutex);
  EngineStats stats = impl_->stats;
  stats.waiting_tokens = impl_->waiting_tokens();
  return stats;
}

const RunnerInfo& Engine::model() const {
  return impl_->model;
}

}  // namespace mobius
