#include "engine/routing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "engine/validate.h"
#include "tests/unit/engine/support.h"

namespace mobius {
namespace {

using testing::HasSubstr;

RunnerInfo telling_model(std::int32_t num_pages = 64) {
  RunnerInfo model = simulated_model(num_pages);
  model.tells_blocks = true;
  return model;
}

/// What the model under test selects: consecutive blocks, elsewhere for each layer, head and row.
std::vector<std::int32_t> selection(std::int32_t layer, std::int32_t head,
                                    const AttentionPolicy& policy, std::int32_t position) {
  const std::int32_t own = position / policy.block;
  const std::int32_t others = attended_blocks(policy, position) - 1;
  std::vector<std::int32_t> blocks(static_cast<std::size_t>(others));
  std::iota(blocks.begin(), blocks.end(), (position + 3 * layer + head) % (own - others + 1));
  blocks.push_back(own);
  return blocks;
}

/// Tells the selections of whoever asks, as a backend does; counts who asked.
struct Teller {
  RunnerInfo model;
  int asked = 0;

  void operator()(const StepBatch& batch) {
    for (const SequenceSlice& slice : batch.view.slices) {
      if (slice.attended.empty()) continue;
      ++asked;
      const std::int32_t position = slice.first_position + slice.num_rows - 1;
      const std::int32_t count = attended_blocks(slice.policy, position);
      ASSERT_EQ(std::ssize(slice.attended), model.num_layers * model.num_heads * count);
      auto next = slice.attended.begin();
      for (std::int32_t layer = 0; layer < model.num_layers; ++layer) {
        for (std::int32_t head = 0; head < model.num_heads; ++head, next += count) {
          if (layer >= model.num_layers - slice.full_attention_last_layers) continue;
          std::ranges::copy(selection(layer, head, slice.policy, position), next);
        }
      }
    }
  }
};

/// A bench whose model tells what it selects.
struct TellingBench {
  explicit TellingBench(const EngineOptions& options = {}, std::int32_t num_pages = 64)
      : bench(options, telling_model(num_pages)) {
    bench.runner.on_step = [this](const StepBatch& batch) { teller(batch); };
  }
  Teller teller{telling_model(), 0};
  Bench bench;
};

GenerationRequest routed(std::size_t prompt_tokens, std::int32_t max_tokens,
                         AttentionPolicy prefill, AttentionPolicy decode, std::uint64_t seed = 0) {
  GenerationRequest request = make_request(prompt_tokens, max_tokens, seed);
  request.attention.prefill = prefill;
  request.attention.decode = decode;
  request.report_routing = true;
  return request;
}

std::uint32_t count_at(const Routing& routing, std::int32_t layer, std::int32_t head,
                       std::int32_t column) {
  return routing.counts.at(
      static_cast<std::size_t>((layer * routing.heads + head) * routing.columns + column));
}

void expect_same(const Routing& a, const Routing& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.counts, b.counts);
  ASSERT_EQ(a.top.size(), b.top.size());
  for (std::size_t i = 0; i < a.top.size(); ++i) {
    EXPECT_EQ(a.top[i].block, b.top[i].block);
    EXPECT_EQ(a.top[i].attended, b.top[i].attended);
    EXPECT_EQ(a.top[i].text, b.top[i].text);
  }
}

TEST(Routing, CountsTheRowThatDrewEachToken) {
  TellingBench telling;
  const AttentionPolicy policy = AttentionPolicy::moba(4, 3);
  const GenerationRequest request = routed(30, 12, policy, policy, 5);
  const Finish finish = telling.bench.finish(*telling.bench.add(request)).finish();
  ASSERT_NE(finish.routing, nullptr);
  const Routing& routing = *finish.routing;
  EXPECT_EQ(telling.teller.asked, 12);
  EXPECT_EQ(routing.tokens, 12);
  EXPECT_EQ(routing.block, 4);
  EXPECT_EQ(routing.first_own_block, 29 / 4);
  EXPECT_EQ(routing.blocks, 40 / 4 + 1) << "the last row that drew a token is at 29 + 11";
  EXPECT_EQ(routing.full_layers, 1);
  EXPECT_EQ(routing.column_blocks, 1);

  std::vector<std::uint32_t> expected(routing.counts.size());
  std::vector<std::int64_t> attended(11), own(11);
  for (std::int32_t position = 29; position <= 40; ++position) {
    for (std::int32_t layer = 0; layer < 3; ++layer) {
      for (std::int32_t head = 0; head < 2; ++head) {
        for (const std::int32_t block : selection(layer, head, policy, position)) {
          ++expected.at(static_cast<std::size_t>((layer * 2 + head) * 11 + block));
          ++attended.at(static_cast<std::size_t>(block));
        }
        ++own.at(static_cast<std::size_t>(position / 4));
      }
    }
  }
  EXPECT_EQ(routing.counts, expected);
  std::int64_t before = std::numeric_limits<std::int64_t>::max();
  for (const RoutedBlock& block : routing.top) {
    const auto i = static_cast<std::size_t>(block.block);
    EXPECT_EQ(block.attended, attended[i]);
    EXPECT_EQ(block.own, own[i]);
    EXPECT_EQ(block.first_token, block.block * 4);
    EXPECT_EQ(block.tokens, block.block == 10 ? 2 : 4) << "42 tokens in all";
    EXPECT_LE(block.attended - block.own, before);
    before = block.attended - block.own;
  }
  EXPECT_EQ(std::ranges::count_if(attended, [](std::int64_t n) { return n > 0; }),
            std::ssize(routing.top));
}

TEST(Routing, IsTheSameAloneInABatchAndPreempted) {
  EngineOptions options;
  options.max_running = 6;
  options.step_tokens = 20;
  TellingBench crowd(options, 30);
  std::vector<GenerationRequest> requests;
  std::vector<std::shared_ptr<Stream>> streams;
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    requests.push_back(
        routed(20 + seed, 40, AttentionPolicy::moba(4, 2), AttentionPolicy::moba(4, 3), seed));
    streams.push_back(crowd.bench.add(requests.back()));
  }
  crowd.bench.run();
  EXPECT_GT(crowd.bench.loop.stats().preemptions, 0) << "the workload is too easy";
  for (std::size_t i = 0; i < requests.size(); ++i) {
    Outcome outcome;
    outcome.take(*streams[i]);
    TellingBench alone;
    const Finish expected = alone.bench.finish(*alone.bench.add(requests[i])).finish();
    ASSERT_NE(outcome.finish().routing, nullptr);
    expect_same(*outcome.finish().routing, *expected.routing);
  }
}

TEST(Routing, IsTheSameWithAPromptFromTheCache) {
  TellingBench telling;
  const AttentionPolicy policy = AttentionPolicy::moba(4, 3);
  const GenerationRequest request = routed(30, 8, policy, policy);
  const Finish first = telling.bench.finish(*telling.bench.add(request)).finish();
  const Finish second = telling.bench.finish(*telling.bench.add(request)).finish();
  EXPECT_GT(second.usage.cached_tokens, 0);
  expect_same(*first.routing, *second.routing);
}

TEST(Routing, CountsRowsOfOneBlockSize) {
  const struct {
    AttentionPolicy prefill, decode;
    std::int32_t block, tokens;
  } cases[] = {
      {AttentionPolicy::moba(8, 2), AttentionPolicy::moba(4, 2), 4, 9},
      {AttentionPolicy::full(), AttentionPolicy::moba(4, 2), 4, 9},
      {AttentionPolicy::moba(8, 2), AttentionPolicy::full(), 8, 1},
      {AttentionPolicy::full(), AttentionPolicy::full(), 0, 0},
  };
  for (const auto& each : cases) {
    TellingBench telling;
    const GenerationRequest request = routed(30, 10, each.prefill, each.decode);
    const Finish finish = telling.bench.finish(*telling.bench.add(request)).finish();
    const Routing& routing = *finish.routing;
    EXPECT_EQ(routing.block, each.block);
    EXPECT_EQ(routing.tokens, each.tokens);
    EXPECT_EQ(routing.full_layers, each.block == 0 ? 4 : 1);
    EXPECT_EQ(routing.top.empty(), each.tokens == 0);
    EXPECT_EQ(telling.teller.asked, each.tokens);
  }
}

TEST(Routing, NobodyIsAskedWhereNobodyWants) {
  TellingBench telling;
  GenerationRequest request = make_request(30, 5);
  EXPECT_EQ(telling.bench.finish(*telling.bench.add(request)).finish().routing, nullptr);
  EXPECT_EQ(telling.teller.asked, 0);
}

TEST(Routing, DoesNotComeWithAnError) {
  TellingBench telling;
  const AttentionPolicy policy = AttentionPolicy::moba(4, 2);
  const auto stream = telling.bench.add(routed(30, 20, policy, policy));
  for (int i = 0; i < 5; ++i) telling.bench.step();
  stream->cancel();
  const Finish finish = telling.bench.finish(*stream).finish();
  EXPECT_EQ(finish.reason, FinishReason::error);
  EXPECT_EQ(finish.routing, nullptr);
}

TEST(Routing, ColumnsWidenWhereBlocksAreMany) {
  RunnerInfo model = telling_model();
  model.num_layers = 64;
  model.num_heads = 64;  // 4096 lists: 64 columns
  AttentionSettings attention;
  attention.decode = AttentionPolicy::moba(16, 2);
  attention.prefill = attention.decode;
  RoutingCounter counter(attention, model);
  const auto see = [&](std::int32_t position, std::int32_t block) {
    const auto asked = counter.ask(attention.decode, position);
    for (std::size_t i = 0; i < asked.size(); i += 2) {
      asked[i] = block;
      asked[i + 1] = position / 16;
    }
    counter.count();
  };
  see(63 * 16, 5);
  see(64 * 16, 4);
  see(200 * 16 + 3, 4);
  const std::vector<std::int32_t> tokens(201 * 16, 'x');
  const Routing routing = counter.result(tokens, *byte_tokenizer());
  EXPECT_EQ(routing.column_blocks, 4);
  EXPECT_EQ(routing.blocks, 201);
  EXPECT_EQ(routing.columns, 51);
  EXPECT_LE(routing.counts.size(), kMaxRoutingCounts);
  for (const std::int32_t head : {0, 63}) {
    EXPECT_EQ(count_at(routing, 1, head, 1), 3U) << "blocks 4 to 7";
    EXPECT_EQ(count_at(routing, 1, head, 15), 1U) << "63";
    EXPECT_EQ(count_at(routing, 1, head, 16), 1U) << "64";
    EXPECT_EQ(count_at(routing, 1, head, 50), 1U) << "200";
  }
  EXPECT_EQ(std::accumulate(routing.counts.begin(), routing.counts.end(), 0U), 3U * 2 * 4096);
  ASSERT_EQ(routing.top.size(), 5U);
  EXPECT_EQ(routing.top[0].block, 4) << "exact, whatever a column is";
  EXPECT_EQ(routing.top[0].attended, 2 * 4096);
  EXPECT_EQ(routing.top[1].block, 5);
  EXPECT_EQ(routing.top[2].own, 4096);
}

TEST(Routing, TextIsWholeCharactersAndNotTooMuch) {
  AttentionSettings attention;
  attention.decode = AttentionPolicy::moba(8192, 2);
  attention.prefill = attention.decode;
  RoutingCounter counter(attention, telling_model());
  const auto asked = counter.ask(attention.decode, 8192);
  for (std::size_t i = 0; i < asked.size(); ++i) asked[i] = static_cast<std::int32_t>(i % 2);
  counter.count();
  // The block begins and its text ends inside of a character.
  std::vector<std::int32_t> tokens = {0xA4, 'a', 'b'};
  while (tokens.size() < 8192) tokens.insert(tokens.end(), {0xC3, 0xA4});
  tokens.resize(8192);
  tokens.push_back(kEndOfTurn);
  const Routing routing = counter.result(tokens, *byte_tokenizer());
  ASSERT_EQ(routing.top.size(), 2U);
  std::string expected = "ab";
  while (expected.size() + 2 <= kRoutingTextBytes - 1) expected += "ä";
  EXPECT_EQ(routing.top[0].text, expected);
  EXPECT_EQ(routing.top[1].text, "<|eot_id|>");
}

TEST(Routing, IsRefusedWhereItCannotBeTold) {
  GenerationRequest request = make_request(5, 5);
  request.report_routing = true;
  const auto status_of = [&](const RunnerInfo& model) { return validate(request, model, 100); };
  EXPECT_TRUE(status_of(telling_model()).ok());
  EXPECT_EQ(status_of(simulated_model()).field(), "routing");
  EXPECT_THAT(status_of(simulated_model()).message(), HasSubstr("(simulated) does not tell"));
  request.attention.decode = AttentionPolicy::moba(8, kMaxRoutingTopK);
  EXPECT_TRUE(status_of(telling_model()).ok());
  request.attention.decode.top_k = kMaxRoutingTopK + 1;
  EXPECT_EQ(status_of(telling_model()).code(), StatusCode::invalid_argument);
  EXPECT_THAT(status_of(telling_model()).message(), HasSubstr("top_k is 257"));
  EXPECT_THAT(status_of(telling_model()).message(), HasSubstr("at most 256"));
  request.attention.decode.mode = AttentionMode::full;
  EXPECT_TRUE(status_of(telling_model()).ok()) << "its top_k is ignored";
}

}  // namespace
}  // namespace mobius
