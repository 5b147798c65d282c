// Prefix reuse on a real model, small and with random weights: greedy answers of conversations are
// the same tokens, with the same log-probabilities to the bit, with and without the cache.

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "models/generate/checkpoint_spec.h"
#include "models/generate/write_checkpoint.h"
#include "models/llama_runner.h"
#include "tests/scratch_folder.h"
#include "tests/unit/engine/support.h"

namespace mobius {
namespace {

struct Answer {
  std::vector<std::int32_t> tokens;
  std::vector<float> logprobs;
  std::int32_t cached = 0;
};

class Conversations {
 public:
  Conversations(const ScratchFolder& folder, bool prefix_cache, std::int32_t num_pages,
                std::int32_t step_tokens, bool fp8_kv)
      : runner_(load(folder, num_pages, fp8_kv)),
        loop_(options(prefix_cache, step_tokens), *runner_, *byte_tokenizer(),
              [this] { return now_; }) {}

  std::shared_ptr<Stream> add(const AttentionSettings& attention,
                              const std::vector<std::int32_t>& prompt) {
    GenerationRequest request;
    request.prompt = prompt;
    request.max_tokens = 40;
    request.ignore_eos = true;
    request.sampling.temperature = 0.0F;
    request.sampling.top_logprobs = 0;
    request.attention = attention;
    auto stream = std::make_shared<Stream>();
    loop_.add({std::move(request), stream, now_});
    return stream;
  }

  void run() {
    while (!loop_.idle()) {
      loop_.step();
      for (StepLoop::Ended& ended : loop_.take_ended()) ended.stream->push(std::move(ended.finish));
      ASSERT_EQ(loop_.scheduler().check_invariants(), "");
    }
  }

  static Answer answer(Stream& stream) {
    Outcome outcome;
    outcome.take(stream);
    Answer out;
    for (const TokenDelta& delta : outcome.deltas) {
      out.tokens.push_back(delta.token.token);
      out.logprobs.push_back(delta.token.logprob);
    }
    EXPECT_EQ(outcome.finish().reason, FinishReason::length);
    out.cached = outcome.finish().usage.cached_tokens;
    return out;
  }

  EngineStats stats() const { return loop_.stats(); }

 private:
  static std::unique_ptr<LlamaRunner> load(const ScratchFolder& folder, std::int32_t num_pages,
                                           bool fp8_kv) {
    ModelOptions options;
    options.folder = folder.path();
    options.page_tokens = 16;
    // Keys and values of 4 layers, one head of 64, in bf16 or as codes with scales, and sums and
    // centroids.
    const std::size_t vector_bytes = fp8_kv ? 64 + 1 : 64 * 2;
    options.fp8_kv = fp8_kv;
    options.kv_cache_bytes =
        static_cast<std::size_t>(num_pages) * 4 * (16 * 2 * vector_bytes + 64 * 6);
    options.step_tokens = 96;
    options.max_sequences = 8;
    options.threads = 2;
    options.centroid_block = 32;
    return load_llama(options);
  }
  static EngineOptions options(bool prefix_cache, std::int32_t step_tokens) {
    EngineOptions out;
    out.prefix_cache = prefix_cache;
    out.step_tokens = step_tokens;
    return out;
  }

  TimePoint now_{};
  std::unique_ptr<LlamaRunner> runner_;
  StepLoop loop_;
};

// Four conversations about two documents, each of three turns, under some settings.
std::vector<Answer> play(Conversations& server, const AttentionSettings& attention) {
  std::vector<std::vector<std::int32_t>> histories;
  for (std::uint64_t i = 0; i < 4; ++i) histories.push_back(make_prompt(150 + 7 * (i % 2), i % 2));
  std::vector<Answer> answers;
  for (std::uint64_t turn = 0; turn < 3; ++turn) {
    std::vector<std::shared_ptr<Stream>> streams;
    for (std::uint64_t i = 0; i < histories.size(); ++i) {
      for (const std::int32_t token : make_prompt(9 + i, 100 + 10 * turn + i)) {
        histories[i].push_back(token);
      }
      streams.push_back(server.add(attention, histories[i]));
    }
    server.run();
    for (std::size_t i = 0; i < histories.size(); ++i) {
      answers.push_back(Conversations::answer(*streams[i]));
      for (const std::int32_t token : answers.back().tokens) histories[i].push_back(token);
    }
  }
  return answers;
}

class ModelReuse : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Caches, ModelReuse, testing::Bool(),
                         [](const testing::TestParamInfo<bool>& fp8) {
                           return std::string(fp8.param ? "fp8" : "bf16");
                         });

TEST_P(ModelReuse, ChangesNoTokenOfAGreedyAnswer) {
  const ScratchFolder folder;
  write_checkpoint(shape_preset("tiny"), {.seed = 5}, folder.path());
  // One server for all settings: a page of other settings would be found if it could be.
  Conversations roomy(folder, true, 400, 96, GetParam());
  Conversations crowded(folder, true, 27, 40, GetParam());
  for (const AttentionSettings& attention :
       {AttentionSettings{AttentionPolicy::full(), AttentionPolicy::full(), 0},
        AttentionSettings{AttentionPolicy::moba(32, 2), AttentionPolicy::full(), 1},
        AttentionSettings{AttentionPolicy::moba(32, 2), AttentionPolicy::moba(32, 2), 2},
        AttentionSettings{AttentionPolicy::moba(16, 3), AttentionPolicy::moba(48, 2), 0}}) {
    Conversations without(folder, false, 400, 96, GetParam());
    const std::vector<Answer> expected = play(without, attention);
    for (Conversations* server : {&roomy, &crowded}) {
      const std::int64_t before = server->stats().cached_tokens;
      const std::vector<Answer> answers = play(*server, attention);
      ASSERT_EQ(answers.size(), expected.size());
      for (std::size_t i = 0; i < answers.size(); ++i) {
        EXPECT_EQ(answers[i].tokens, expected[i].tokens) << "answer " << i;
        EXPECT_EQ(answers[i].logprobs, expected[i].logprobs) << "answer " << i;
        EXPECT_EQ(expected[i].cached, 0);
      }
      if (server == &roomy) {
        EXPECT_GT(server->stats().cached_tokens - before, 8 * 144) << "two turns of four";
        // Found among one's own kind only: the first prompt computes its document.
        EXPECT_EQ(answers[0].cached + answers[2].cached, 144);
      }
    }
  }
  EXPECT_EQ(roomy.stats().preemptions, 0);
  EXPECT_GT(crowded.stats().preemptions, 0) << "the pool is too large for a test";
  EXPECT_GT(crowded.stats().cached_tokens, 0);
}

}  // namespace
}  // namespace mobius
