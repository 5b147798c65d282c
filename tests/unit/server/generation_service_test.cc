#include "server/generation_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <future>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "tests/unit/engine/simulated_runner.h"
#include "tests/unit/engine/support.h"

namespace mobius {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using Tokens = std::vector<std::int32_t>;

GenerationOptions tokens(std::int64_t max_tokens, std::optional<std::uint64_t> seed = {}) {
  GenerationOptions options;
  options.max_tokens = max_tokens;
  options.seed = seed;
  return options;
}

GenerationServiceOptions service_options(std::int32_t bos_token) {
  GenerationServiceOptions options;
  options.bos_token = bos_token;
  return options;
}

/// A service in front of an engine whose model is simulated: tokens are bytes.
class GenerationServiceTest : public testing::Test {
 protected:
  GenerationServiceTest() {
    EngineOptions options;
    options.end_tokens = {kEndOfTurn};
    auto runner = std::make_unique<SimulatedRunner>(simulated_model());
    runner->on_step = [this](const StepBatch&) {
      std::unique_lock lock(mutex_);
      open_.wait(lock, [this] { return !closed_; });
      if (broken_) throw std::runtime_error("secret path");
    };
    engine_ = std::make_unique<Engine>(options, std::move(runner), tokenizer_);
  }

  ~GenerationServiceTest() override { open_gate(); }

  /// Holds the engine's next step until open_gate.
  void close_gate() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  void open_gate() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = false;
    }
    open_.notify_all();
  }

  std::unique_ptr<GenerationService> make_service(GenerationServiceOptions options = {}) {
    options.model_name = "m";
    return std::make_unique<GenerationService>(options, *engine_, tokenizer_);
  }

  static StatusOr<Generation> complete(GenerationService& service, CompletionInput input,
                                       GenerationService::Abandoned abandoned = nullptr) {
    std::promise<StatusOr<Generation>> promise;
    service.generate(
        std::move(input), std::move(abandoned),
        [&promise](StatusOr<Generation> result) { promise.set_value(std::move(result)); });
    return promise.get_future().get();
  }

  /// Waits for the stream's end.
  static Outcome finish(Stream& stream) {
    Outcome outcome;
    std::mutex mutex;
    std::condition_variable wake;
    bool awake = false;
    stream.on_events([&] {
      {
        const std::lock_guard lock(mutex);
        awake = true;
      }
      wake.notify_one();
    });
    while (!outcome.ended()) {
      std::unique_lock lock(mutex);
      wake.wait(lock, [&] { return awake; });
      awake = false;
      lock.unlock();
      outcome.take(stream);
    }
    stream.on_events({});
    return outcome;
  }

  std::mutex mutex_;
  std::condition_variable open_;
  bool closed_ = false;
  std::atomic<bool> broken_ = false;
  std::shared_ptr<const Tokenizer> tokenizer_ = byte_tokenizer();
  std::unique_ptr<Engine> engine_;
};

TEST_F(GenerationServiceTest, TextIsTokenizedBehindABeginOfText) {
  const auto service = make_service(service_options(3));
  CompletionInput input{.model = "", .prompts = {"abc"}, .options = tokens(4, 9)};
  const StatusOr<Generation> generation = complete(*service, input);
  ASSERT_TRUE(generation.ok()) << generation.status().message();
  EXPECT_THAT(generation.value().id, StartsWith("cmpl-"));
  EXPECT_EQ(generation.value().seed, 9U);
  EXPECT_EQ(generation.value().prompt_tokens, 4);
  EXPECT_GT(generation.value().created, 1700000000);

  GenerationRequest same;
  same.prompt = {3, 'a', 'b', 'c'};
  same.sampling.seed = 9;
  EXPECT_EQ(finish(*generation.value().stream()).tokens(),
            expected_tokens(same, simulated_model(), 4));
}

TEST_F(GenerationServiceTest, TokensAreUsedAsTheyAre) {
  const auto service = make_service(service_options(3));
  const StatusOr<Generation> generation = complete(
      *service, {.model = "m", .prompts = {std::vector<std::int32_t>{5, 6}}, .options = tokens(1)});
  ASSERT_TRUE(generation.ok());
  EXPECT_EQ(finish(*generation.value().stream()).finish().usage.prompt_tokens, 2);
}

TEST_F(GenerationServiceTest, DrawsSeedsAndIds) {
  const auto service = make_service();
  const CompletionInput input{.model = "", .prompts = {"x"}, .options = tokens(1)};
  const StatusOr<Generation> first = complete(*service, input);
  const StatusOr<Generation> second = complete(*service, input);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_NE(first.value().seed, second.value().seed);
  EXPECT_LT(first.value().seed, std::uint64_t{1} << 53U) << "must survive JSON readers";
  EXPECT_NE(first.value().id, second.value().id);
}

TEST_F(GenerationServiceTest, ChoicesHaveSeedsOfTheirOwnThatCanBeAskedForAgain) {
  const auto service = make_service();
  CompletionInput input{.model = "", .prompts = {"abc", "de"}, .options = tokens(4, 9)};
  input.options.n = 2;
  const StatusOr<Generation> generation = complete(*service, input);
  ASSERT_TRUE(generation.ok()) << generation.status().message();
  const std::vector<Choice>& choices = generation.value().choices;
  ASSERT_EQ(choices.size(), 4U);
  EXPECT_EQ(generation.value().prompt_tokens, 5);
  EXPECT_EQ(choices[0].id, generation.value().id);
  EXPECT_EQ(choices[0].seed, 9U);
  EXPECT_EQ(choices[3].id, generation.value().id + "-3");
  for (std::size_t i = 0; i < choices.size(); ++i) {
    const auto ours = finish(*choices[i].stream).tokens();
    const StatusOr<Generation> again = complete(
        *service,
        {.model = "", .prompts = {i < 2 ? "abc" : "de"}, .options = tokens(4, choices[i].seed)});
    EXPECT_EQ(finish(*again.value().stream()).tokens(), ours) << i;
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(choices[i].seed, choices[j].seed);
  }
}

TEST_F(GenerationServiceTest, ChoicesAreBounded) {
  const auto service = make_service();
  const auto refusal = [&](std::int64_t n, std::size_t prompts) {
    CompletionInput input{
        .model = "", .prompts = std::vector<Prompt>(prompts, "x"), .options = tokens(1)};
    input.options.n = n;
    return complete(*service, input).status();
  };
  EXPECT_EQ(refusal(0, 1).message(), "n is 0, must be from 1 to 128");
  EXPECT_EQ(refusal(129, 1).field(), "n");
  EXPECT_EQ(refusal(3, 50).message(), "n is 3, must be from 1 to 2 for 50 prompts");
  EXPECT_EQ(refusal(1, 129).field(), "prompt");
  EXPECT_EQ(refusal(1, 0).field(), "prompt");
}

TEST_F(GenerationServiceTest, AllChoicesOrNone) {
  const auto service = make_service();
  CompletionInput input{.model = "", .prompts = {"x", Tokens(100000, 'x')}, .options = tokens(1)};
  EXPECT_EQ(complete(*service, input).status().field(), "prompt");
  // Nothing is left behind: the engine gets idle.
  while (engine_->stats().running + engine_->stats().waiting > 0) std::this_thread::yield();
}

TEST_F(GenerationServiceTest, MergesTheServersAttention) {
  GenerationServiceOptions service_options;
  service_options.attention = {AttentionPolicy::moba(8, 2), {AttentionMode::full, 8, 2}, 1};
  const auto service = make_service(service_options);
  // Only the mode is asked for: block and top-k are the server's.
  GenerationOptions options = tokens(2, 1);
  options.attention.decode.mode = AttentionMode::moba;
  options.attention.prefill.top_k = 3;
  const StatusOr<Generation> generation =
      complete(*service, {.model = "", .prompts = {"abcdefghijklmnopqrst"}, .options = options});
  ASSERT_TRUE(generation.ok()) << generation.status().message();

  GenerationRequest same;
  for (const char c : std::string("abcdefghijklmnopqrst")) same.prompt.push_back(c);
  same.sampling.seed = 1;
  same.attention = {AttentionPolicy::moba(8, 3), AttentionPolicy::moba(8, 2), 1};
  EXPECT_EQ(finish(*generation.value().stream()).tokens(),
            expected_tokens(same, simulated_model(), 2));
}

TEST_F(GenerationServiceTest, UnknownModelIsNotFound) {
  const auto service = make_service();
  const StatusOr<Generation> generation =
      complete(*service, {.model = "other", .prompts = {"x"}, .options = {}});
  ASSERT_FALSE(generation.ok());
  EXPECT_EQ(generation.status().code(), StatusCode::not_found);
  EXPECT_EQ(generation.status().field(), "model");
  EXPECT_EQ(generation.status().message(),
            "model \"other\" does not exist; this server runs \"m\"");
}

struct BadOptions {
  const char* field;
  const char* words;
  void (*set)(GenerationOptions&);
};

class BadGenerationOptions : public GenerationServiceTest,
                             public testing::WithParamInterface<BadOptions> {};

TEST_P(BadGenerationOptions, AreRefusedByName) {
  const auto service = make_service();
  GenerationOptions options;
  GetParam().set(options);
  const StatusOr<Generation> generation =
      complete(*service, {.model = "", .prompts = {"x"}, .options = options});
  ASSERT_FALSE(generation.ok());
  EXPECT_EQ(generation.status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(generation.status().field(), GetParam().field);
  EXPECT_THAT(generation.status().message(), HasSubstr(GetParam().words));
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadGenerationOptions,
    testing::Values(
        BadOptions{"max_tokens", "is 9999999999, must be from 0 to 2147483647",
                   [](auto& o) { o.max_tokens = 9999999999; }},
        BadOptions{"max_tokens", "is -1", [](auto& o) { o.max_tokens = -1; }},
        BadOptions{"temperature", "1e+300", [](auto& o) { o.temperature = 1e300; }},
        BadOptions{"temperature", "nan", [](auto& o) { o.temperature = std::nan(""); }},
        BadOptions{"temperature", "inf",
                   [](auto& o) { o.temperature = std::numeric_limits<double>::infinity(); }},
        BadOptions{"max_tokens", "is -9999999999, must be at least 0",
                   [](auto& o) { o.max_tokens = -9999999999; }},
        BadOptions{"top_k", "-1", [](auto& o) { o.top_k = -1; }},
        BadOptions{"top_k", "is -9999999999, must be at least 0 (0: all)",
                   [](auto& o) { o.top_k = -9999999999; }},
        BadOptions{"top_logprobs", "is 9999999999, must be from 0 to 20",
                   [](auto& o) { o.top_logprobs = 9999999999; }},
        BadOptions{"prompt_logprobs", "is 21, must be from 0 to 20",
                   [](auto& o) { o.prompt_logprobs = 21; }},
        BadOptions{"priority", "is 9999999999, must be from -100 to 100",
                   [](auto& o) { o.priority = 9999999999; }},
        BadOptions{"attention.full_attention_last_layers", "is 9999999999, must be from 0 to ",
                   [](auto& o) { o.attention.full_attention_last_layers = 9999999999; }},
        BadOptions{"top_logprobs", "-1", [](auto& o) { o.top_logprobs = -1; }},
        BadOptions{"top_logprobs", "21", [](auto& o) { o.top_logprobs = 21; }},
        BadOptions{"logit_bias", "has token 99999999999, must be from 0 to 255",
                   [](auto& o) {
                     o.logit_bias = {{99999999999, 1.0}};
                   }},
        BadOptions{"logit_bias", "256",
                   [](auto& o) {
                     o.logit_bias = {{256, 1.0}};
                   }},
        BadOptions{"stop_token_ids", "has token -99999999999, must be from 0 to 255",
                   [](auto& o) { o.stop_token_ids = {-99999999999}; }},
        BadOptions{"attention.prefill.block", "is 6",
                   [](auto& o) {
                     o.attention.prefill.mode = AttentionMode::moba;
                     o.attention.prefill.block = 6;
                   }},
        BadOptions{"attention.decode.top_k", "is 99999999999, must be from 1 to 2147483647",
                   [](auto& o) { o.attention.decode.top_k = 99999999999; }}));

TEST_F(GenerationServiceTest, EngineRefusalsPass) {
  const auto service = make_service();
  const StatusOr<Generation> generation =
      complete(*service, {.model = "", .prompts = {Tokens(100000, 'x')}, .options = {}});
  ASSERT_FALSE(generation.ok());
  EXPECT_EQ(generation.status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(generation.status().field(), "prompt");
  EXPECT_THAT(generation.status().message(), StartsWith("prompt has 100000 tokens"));
}

TEST_F(GenerationServiceTest, TextThatCannotFitIsRefusedUntokenized) {
  const auto service = make_service(service_options(3));
  const StatusOr<Generation> generation =
      complete(*service, {.model = "", .prompts = {std::string(100000, 'x')}, .options = {}});
  ASSERT_FALSE(generation.ok());
  EXPECT_EQ(generation.status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(generation.status().field(), "prompt");
  EXPECT_THAT(generation.status().message(), StartsWith("prompt has at least 100001 tokens"));
}

TEST_F(GenerationServiceTest, AbandonedWorkIsSkipped) {
  const auto service = make_service();
  const auto abandoned = std::make_shared<const std::atomic<bool>>(true);
  const StatusOr<Generation> generation =
      complete(*service, {.model = "", .prompts = {"x"}, .options = {}}, abandoned);
  ASSERT_FALSE(generation.ok());
  EXPECT_EQ(generation.status().code(), StatusCode::cancelled);
}

TEST_F(GenerationServiceTest, DrainingRefusesNewRequestsOnly) {
  const auto service = make_service();
  close_gate();
  const StatusOr<Generation> before =
      complete(*service, {.model = "", .prompts = {"x"}, .options = tokens(2)});
  ASSERT_TRUE(before.ok());
  EXPECT_TRUE(service->ready());
  service->drain();
  EXPECT_FALSE(service->ready());
  const StatusOr<Generation> after =
      complete(*service, {.model = "", .prompts = {"x"}, .options = {}});
  ASSERT_FALSE(after.ok());
  EXPECT_EQ(after.status().code(), StatusCode::unavailable);
  open_gate();
  EXPECT_NE(finish(*before.value().stream()).finish().reason, FinishReason::error);
}

TEST_F(GenerationServiceTest, IsNotReadyOnceTheModelFailed) {
  const auto service = make_service();
  broken_ = true;
  const CompletionInput input{.model = "", .prompts = {"x"}, .options = tokens(2)};
  const StatusOr<Generation> generation = complete(*service, input);
  ASSERT_TRUE(generation.ok());
  const Finish finished = finish(*generation.value().stream()).finish();
  EXPECT_EQ(finished.status.code(), StatusCode::internal);
  EXPECT_THAT(finished.status.message(), Not(HasSubstr("secret")));
  EXPECT_FALSE(service->ready());
  EXPECT_EQ(complete(*service, input).status().code(), StatusCode::unavailable);
}

TEST_F(GenerationServiceTest, AFullQueueRefuses) {
  GenerationServiceOptions options;
  options.max_queued = 2;
  const auto service = make_service(options);
  // The first callback keeps the only tokenizer thread; two more requests may wait.
  std::promise<void> running;
  std::promise<void> release;
  std::shared_future<void> released = release.get_future().share();
  const CompletionInput input{.model = "", .prompts = {"x"}, .options = tokens(1)};
  service->generate(input, nullptr, [&running, released](const StatusOr<Generation>&) {
    running.set_value();
    released.wait();
  });
  running.get_future().wait();
  std::atomic<int> accepted = 0;
  StatusCode refusal = StatusCode::ok;
  for (int i = 0; i < 2; ++i) {
    service->generate(input, nullptr,
                      [&](const StatusOr<Generation>& result) { accepted += result.ok() ? 1 : 0; });
  }
  service->generate(input, nullptr,
                    [&](const StatusOr<Generation>& result) { refusal = result.status().code(); });
  EXPECT_EQ(refusal, StatusCode::resource_exhausted) << "answered inside the call";
  release.set_value();
  while (accepted.load() < 2) std::this_thread::yield();
}

TEST_F(GenerationServiceTest, QueuedBytesAreBounded) {
  GenerationServiceOptions options;
  options.max_queued_bytes = 5000;
  const auto service = make_service(options);
  // The first callback keeps the only tokenizer thread, and its input's bytes.
  std::promise<void> running;
  std::promise<void> release;
  std::shared_future<void> released = release.get_future().share();
  const auto input = [](std::size_t bytes) {
    return CompletionInput{.model = "", .prompts = {std::string(bytes, 'x')}, .options = tokens(1)};
  };
  service->generate(input(100), nullptr, [&running, released](const StatusOr<Generation>&) {
    running.set_value();
    released.wait();
  });
  running.get_future().wait();
  EXPECT_GT(service->budget().used(), 100U);
  Status refusal;
  service->generate(input(4200), nullptr,
                    [&](const StatusOr<Generation>& result) { refusal = result.status(); });
  EXPECT_EQ(refusal.code(), StatusCode::resource_exhausted) << "answered inside the call";
  EXPECT_THAT(refusal.message(), HasSubstr("5000 (server.max_queued_bytes)"));
  std::promise<bool> small;
  service->generate(input(10), nullptr,
                    [&](const StatusOr<Generation>& result) { small.set_value(result.ok()); });
  release.set_value();
  EXPECT_TRUE(small.get_future().get()) << "what fits is taken";
  while (service->budget().used() > 0) std::this_thread::yield();
  EXPECT_EQ(complete(*service, input(4200)).status().field(), "prompt") << "there is room again";
}

TEST(ByteBudget, SharesGrowAndShrink) {
  ByteBudget budget(10);
  {
    ByteBudget::Share a(budget);
    EXPECT_TRUE(a.resize(6));
    ByteBudget::Share b(budget);
    EXPECT_FALSE(b.resize(5));
    EXPECT_TRUE(b.resize(4));
    EXPECT_FALSE(a.resize(7));
    EXPECT_EQ(budget.used(), 10U);
    EXPECT_TRUE(a.resize(1));
    EXPECT_TRUE(b.resize(9));
    const ByteBudget::Share c(std::move(b));
    EXPECT_EQ(budget.used(), 10U);
  }
  EXPECT_EQ(budget.used(), 0U);
}

}  // namespace
}  // namespace mobius
