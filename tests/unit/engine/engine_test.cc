#include "engine/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/engine/support.h"

namespace mobius {
namespace {

// Lets a test hold the engine thread inside a step.
class Gate {
 public:
  // On the engine thread: says that it came here, and waits while the gate is shut.
  void pass() {
    std::unique_lock lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void set_open(bool open) {
    const std::scoped_lock lock(mutex_);
    open_ = open;
    changed_.notify_all();
  }
  void wait_for_arrival() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return arrived_ > 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0;
  bool open_ = true;
};

std::unique_ptr<SimulatedRunner> make_runner(const RunnerInfo& model = simulated_model()) {
  return std::make_unique<SimulatedRunner>(model);
}

std::unique_ptr<SimulatedRunner> gated_runner(Gate& gate) {
  auto runner = make_runner();
  runner->on_step = [&gate](const StepBatch&) { gate.pass(); };
  return runner;
}

// Waits for the end of a stream, as a server would: asleep until notified.
Outcome wait_for(Stream& stream) {
  std::mutex mutex;
  std::condition_variable wake;
  bool ready = false;
  stream.on_events([&] {
    const std::scoped_lock lock(mutex);
    ready = true;
    wake.notify_one();
  });
  Outcome outcome;
  while (!outcome.ended()) {
    {
      std::unique_lock lock(mutex);
      wake.wait(lock, [&] { return ready; });
      ready = false;
    }
    outcome.take(stream);
  }
  stream.on_events({});
  EXPECT_TRUE(outcome.in_order);
  return outcome;
}

GenerationRequest named(GenerationRequest request, std::string id) {
  request.id = std::move(id);
  return request;
}

TEST(Engine, RunsARequestAndSleepsAgain) {
  Engine engine({}, make_runner(), byte_tokenizer());
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    const GenerationRequest request = make_request(20, 6, seed);
    const auto stream = engine.submit(request);
    ASSERT_TRUE(stream.ok());
    const Outcome outcome = wait_for(*stream.value());
    EXPECT_EQ(outcome.tokens(), expected_tokens(request, engine.model(), 6));
    const EngineStats stats = engine.stats();
    EXPECT_EQ(stats.pages_used, 0);
    EXPECT_EQ(stats.running, 0);
    EXPECT_EQ(stats.waiting, 0);
    EXPECT_EQ(stats.requests_finished, static_cast<std::int64_t>(seed) + 1);
    EXPECT_TRUE(stats.healthy);
  }
}

TEST(Engine, NeedsARunnerAndATokenizer) {
  EXPECT_THROW(Engine({}, nullptr, byte_tokenizer()), std::invalid_argument);
  EXPECT_THROW(Engine({}, make_runner(), nullptr), std::invalid_argument);
  EngineOptions options;
  options.max_waiting = -1;
  EXPECT_THROW(Engine(options, make_runner(), byte_tokenizer()), std::invalid_argument);
}

TEST(Engine, RefusesAnInvalidRequestAtSubmit) {
  Engine engine({}, make_runner(simulated_model(4)), byte_tokenizer());
  const auto stream = engine.submit(make_request(16, 1));
  ASSERT_FALSE(stream.ok());
  EXPECT_EQ(stream.status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(stream.status().field(), "prompt");
  EXPECT_TRUE(engine.submit(make_request(15, 1)).ok());
}

TEST(Engine, RefusesAnIdThatIsInUse) {
  Gate gate;
  gate.set_open(false);
  Engine engine({}, gated_runner(gate), byte_tokenizer());
  const auto first = engine.submit(named(make_request(4, 2), "a"));
  ASSERT_TRUE(first.ok());
  const auto second = engine.submit(named(make_request(4, 2), "a"));
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(second.status().field(), "id");
  EXPECT_TRUE(engine.submit(make_request(4, 2)).ok()) << "requests without an id do not clash";
  EXPECT_TRUE(engine.submit(make_request(4, 2)).ok());
  gate.set_open(true);
  wait_for(*first.value());
  EXPECT_TRUE(engine.submit(named(make_request(4, 2), "a")).ok()) << "free again with the Finish";
}

TEST(Engine, FullQueueIsResourceExhausted) {
  Gate gate;
  gate.set_open(false);
  EngineOptions options;
  options.max_running = 2;
  options.max_waiting = 3;
  Engine engine(options, gated_runner(gate), byte_tokenizer());
  std::vector<std::shared_ptr<Stream>> streams;
  for (int i = 0; i < 5; ++i) {
    auto stream = engine.submit(make_request(4, 2));
    ASSERT_TRUE(stream.ok()) << i;
    streams.push_back(stream.value());
  }
  const auto refused = engine.submit(make_request(4, 2));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), StatusCode::resource_exhausted);
  gate.set_open(true);
  for (const auto& stream : streams) EXPECT_TRUE(wait_for(*stream).finish().status.ok());
  EXPECT_TRUE(engine.submit(make_request(4, 2)).ok());
}

TEST(Engine, QueueIsLimitedByTokensToo) {
  Gate gate;
  gate.set_open(false);
  EngineOptions options;
  options.max_running = 1;
  options.max_waiting_tokens = 50;
  Engine engine(options, gated_runner(gate), byte_tokenizer());
  std::vector<std::shared_ptr<Stream>> streams;
  const auto submit = [&](std::size_t prompt_tokens) {
    auto stream = engine.submit(make_request(prompt_tokens, 2, streams.size()));
    if (stream.ok()) streams.push_back(stream.value());
    return stream.status();
  };
  ASSERT_TRUE(submit(100).ok()) << "nobody waits, so there is nothing to wait for";
  gate.wait_for_arrival();
  // The step that runs has told nothing yet, so the first one still counts among those that wait.
  Status refused = submit(1);
  EXPECT_EQ(refused.code(), StatusCode::resource_exhausted);
  EXPECT_GE(refused.retry_after().count(), 1);
  EXPECT_NE(refused.message().find("at most 50"), std::string::npos) << refused.message();
  EXPECT_EQ(engine.stats().waiting_tokens, 100);
  gate.set_open(true);
  EXPECT_TRUE(wait_for(*streams[0]).finish().status.ok());
  EXPECT_EQ(engine.stats().waiting_tokens, 0);
  EXPECT_TRUE(submit(200).ok());
  EXPECT_TRUE(wait_for(*streams[1]).finish().status.ok());
}

TEST(Engine, NobodyHasToWait) {
  Gate gate;
  gate.set_open(false);
  EngineOptions options;
  options.max_running = 1;
  options.max_waiting = 0;
  Engine engine(options, gated_runner(gate), byte_tokenizer());
  const auto running = engine.submit(make_request(4, 2));
  ASSERT_TRUE(running.ok());
  EXPECT_EQ(engine.submit(make_request(4, 2)).status().code(), StatusCode::resource_exhausted);
  gate.set_open(true);
  EXPECT_TRUE(wait_for(*running.value()).finish().status.ok());
  EXPECT_TRUE(engine.submit(make_request(4, 2)).ok());
}

TEST(Engine, StopEndsRequestsAndRefusesOthers) {
  Gate gate;
  gate.set_open(false);
  Engine engine({}, gated_runner(gate), byte_tokenizer());
  const auto stream = engine.submit(make_request(10, 200));
  ASSERT_TRUE(stream.ok());
  gate.wait_for_arrival();
  engine.stop();
  EXPECT_EQ(engine.submit(make_request(4, 2)).status().code(), StatusCode::unavailable);
  gate.set_open(true);
  EXPECT_EQ(wait_for(*stream.value()).finish().status.code(), StatusCode::unavailable);
  EXPECT_TRUE(engine.stats().healthy);
}

/// Has no memory for the next sequence when told so.
class ScarceRunner : public SimulatedRunner {
 public:
  using SimulatedRunner::SimulatedRunner;
  const RunnerInfo& info() const override {
    if (scarce.exchange(false)) throw std::bad_alloc();
    return SimulatedRunner::info();
  }
  mutable std::atomic<bool> scarce = false;
};

TEST(Engine, ARequestThatMemoryDoesNotSufficeForEndsAlone) {
  auto runner = std::make_unique<ScarceRunner>(simulated_model());
  ScarceRunner& scarce = *runner;
  Engine engine({}, std::move(runner), byte_tokenizer());
  scarce.scarce = true;
  const auto refused = engine.submit(named(make_request(4, 2), "a"));
  ASSERT_TRUE(refused.ok());
  EXPECT_EQ(wait_for(*refused.value()).finish().status.code(), StatusCode::resource_exhausted);
  const auto next = engine.submit(named(make_request(4, 2), "a"));
  ASSERT_TRUE(next.ok()) << "the id is free again";
  EXPECT_TRUE(wait_for(*next.value()).finish().status.ok());
  EXPECT_TRUE(engine.stats().healthy);
  EXPECT_EQ(engine.stats().requests_finished, 2);
}

TEST(Engine, CancelsAndMeetsDeadlinesWhileRunning) {
  Gate gate;
  gate.set_open(false);
  Engine engine({}, gated_runner(gate), byte_tokenizer());
  GenerationRequest late = make_request(4, 200);
  late.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
  const auto with_deadline = engine.submit(late);
  const auto cancelled = engine.submit(make_request(100, 50));
  ASSERT_TRUE(with_deadline.ok() && cancelled.ok());
  gate.wait_for_arrival();
  std::this_thread::sleep_until(*late.deadline);
  cancelled.value()->cancel();
  gate.set_open(true);
  EXPECT_EQ(wait_for(*cancelled.value()).finish().status.code(), StatusCode::cancelled);
  EXPECT_EQ(wait_for(*with_deadline.value()).finish().status.code(), StatusCode::deadline_exceeded);
}

TEST(Engine, DeadlineInThePastEndsAtOnce) {
  Engine engine({}, make_runner(), byte_tokenizer());
  GenerationRequest request = make_request(4, 200);
  request.deadline = std::chrono::steady_clock::now() - std::chrono::seconds(1);
  const auto stream = engine.submit(request);
  ASSERT_TRUE(stream.ok());
  const Outcome outcome = wait_for(*stream.value());
  EXPECT_EQ(outcome.finish().status.code(), StatusCode::deadline_exceeded);
  EXPECT_TRUE(outcome.deltas.empty());
}

TEST(Engine, DrainRefusesNewRequestsAndFinishesTheOthers) {
  Gate gate;
  gate.set_open(false);
  Engine engine({}, gated_runner(gate), byte_tokenizer());
  const auto stream = engine.submit(make_request(10, 5));
  ASSERT_TRUE(stream.ok());
  engine.drain();
  const auto refused = engine.submit(make_request(10, 5));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), StatusCode::unavailable);
  gate.set_open(true);
  EXPECT_EQ(wait_for(*stream.value()).finish().reason, FinishReason::length);
}

TEST(Engine, DestructorEndsEveryRequest) {
  Gate gate;
  gate.set_open(false);
  std::vector<std::shared_ptr<Stream>> streams;
  {
    EngineOptions options;
    options.max_running = 2;
    Engine engine(options, gated_runner(gate), byte_tokenizer());
    for (int i = 0; i < 6; ++i) streams.push_back(engine.submit(make_request(10, 50)).value());
    gate.wait_for_arrival();
    gate.set_open(true);
  }
  for (const auto& stream : streams) {
    Outcome outcome;
    outcome.take(*stream);
    ASSERT_TRUE(outcome.ended());
    // The engine may have finished some before it saw that it must stop.
    if (!outcome.finish().status.ok()) {
      EXPECT_EQ(outcome.finish().status.code(), StatusCode::unavailable);
    } else {
      EXPECT_EQ(outcome.deltas.size(), 50U);
    }
  }
}

TEST(Engine, DestructorWithoutRequests) {
  const Engine engine({}, make_runner(), byte_tokenizer());
  EXPECT_EQ(engine.stats().requests_finished, 0);
}

TEST(Engine, RunnerExceptionFailsEverythingAndMarksUnhealthy) {
  Gate gate;
  gate.set_open(false);
  auto runner = make_runner();
  runner->on_step = [&](const StepBatch& batch) {
    gate.pass();
    if (batch.view.tokens.size() > 3) throw std::runtime_error("device lost");
  };
  std::mutex mutex;
  std::vector<std::string> failures;
  EngineOptions options;
  options.on_failure = [&](const std::string& what) {
    const std::scoped_lock lock(mutex);
    failures.push_back(what);
  };
  Engine engine(options, std::move(runner), byte_tokenizer());
  std::vector<std::shared_ptr<Stream>> streams;
  for (int i = 0; i < 4; ++i) streams.push_back(engine.submit(make_request(4, 50)).value());
  gate.set_open(true);
  for (const auto& stream : streams) {
    const Outcome outcome = wait_for(*stream);
    EXPECT_EQ(outcome.finish().reason, FinishReason::error);
    EXPECT_EQ(outcome.finish().status.code(), StatusCode::internal);
    EXPECT_EQ(outcome.finish().status.message(), "the model failed; the server stops")
        << "what was thrown is not for clients";
  }
  {
    const std::scoped_lock lock(mutex);
    EXPECT_EQ(failures, std::vector<std::string>{"device lost"});
  }
  EXPECT_FALSE(engine.stats().healthy);
  EXPECT_EQ(engine.stats().pages_used, 0);
  const auto refused = engine.submit(make_request(4, 5));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), StatusCode::unavailable);
}

TEST(Engine, ManyThreadsSubmitCancelAndWatch) {
  constexpr int kThreads = 6;
  constexpr int kRequests = 40;
  EngineOptions options;
  options.max_running = 8;
  options.step_tokens = 24;
  RunnerInfo model = simulated_model(40);
  Engine engine(options, make_runner(model), byte_tokenizer());
  std::atomic<int> ended = 0;
  std::atomic<bool> watching = true;
  std::thread watcher([&] {
    while (watching) {
      const EngineStats stats = engine.stats();
      EXPECT_LE(stats.pages_used, stats.pages_total);
      EXPECT_LE(stats.running, 8);
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937 random(static_cast<std::uint32_t>(thread));
      for (int i = 0; i < kRequests; ++i) {
        GenerationRequest request =
            make_request(1 + random() % 40, 1 + static_cast<std::int32_t>(random() % 20), random());
        request.id = std::to_string(thread) + "/" + std::to_string(i);
        request.report_progress = random() % 2 == 0;
        const bool cancel = random() % 4 == 0;
        const auto stream = engine.submit(request);
        ASSERT_TRUE(stream.ok()) << stream.status().message();
        if (cancel) stream.value()->cancel();
        const Outcome outcome = wait_for(*stream.value());
        ++ended;
        if (outcome.finish().status.ok()) {
          EXPECT_EQ(outcome.tokens(),
                    expected_tokens(request, model, static_cast<std::size_t>(*request.max_tokens)));
        } else {
          EXPECT_TRUE(cancel);
          EXPECT_EQ(outcome.finish().status.code(), StatusCode::cancelled);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  watching = false;
  watcher.join();
  EXPECT_EQ(ended, kThreads * kRequests);
  EXPECT_EQ(engine.stats().requests_finished, kThreads * kRequests);
  EXPECT_EQ(engine.stats().pages_used, 0);
  EXPECT_EQ(engine.stats().running + engine.stats().waiting, 0);
}

TEST(Engine, DestructorWhileOthersWait) {
  for (int round = 0; round < 20; ++round) {
    std::vector<std::thread> consumers;
    {
      Engine engine({}, make_runner(), byte_tokenizer());
      for (std::uint64_t i = 0; i < 4; ++i) {
        auto stream = engine.submit(make_request(30, 60, i)).value();
        consumers.emplace_back([stream] { EXPECT_TRUE(wait_for(*stream).ended()); });
      }
    }
    for (std::thread& consumer : consumers) consumer.join();
  }
}

}  // namespace
}  // namespace mobius
