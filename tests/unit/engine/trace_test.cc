// Replays the beginning of a published trace of long-context chat requests (Mooncake), scaled down,
// against the simulated model: arrivals by the trace's clock, one step per unit of time.

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/unit/engine/support.h"

namespace mobius {
namespace {

constexpr std::size_t kRequests = 200;

struct TraceLine {
  std::int64_t arrival_ms = 0;
  std::int32_t input = 0;
  std::int32_t output = 0;
};

std::filesystem::path trace_path() {
  const char* data = std::getenv("MOBIUS_TEST_DATA");
  const std::filesystem::path folder =
      data != nullptr ? std::filesystem::path(data)
                      : std::filesystem::path(MOBIUS_SOURCE_DIR) / ".." / "shared" / "data";
  return folder / "traces" / "mooncake-conversation.jsonl";
}

std::vector<TraceLine> read_trace(const std::filesystem::path& path, std::size_t count) {
  std::vector<TraceLine> lines;
  std::ifstream file(path);
  for (std::string text; lines.size() < count && std::getline(file, text);) {
    TraceLine line;
    long long arrival = 0;
    const int fields =
        std::sscanf(text.c_str(), R"({"timestamp": %lld, "input_length": %d, "output_length": %d)",
                    &arrival, &line.input, &line.output);
    if (fields != 3) {
      ADD_FAILURE() << "unexpected line: " << text.substr(0, 100);
      break;
    }
    line.arrival_ms = arrival;
    lines.push_back(line);
  }
  return lines;
}

struct Replay {
  std::vector<Outcome> outcomes;
  std::vector<GenerationRequest> requests;
  std::int64_t steps = 0;
  EngineStats stats;
};

Replay replay(const std::vector<TraceLine>& lines) {
  // Lengths are divided by 64 (input) and 4 (output): the longest still takes many steps, and the
  // pool runs out.
  RunnerInfo model = simulated_model(300);
  model.page_tokens = 8;
  model.limits = {96, 24, 2400};
  EngineOptions options;
  options.max_running = 24;
  options.step_tokens = 96;
  Bench bench(options, model);

  Replay out;
  std::vector<std::shared_ptr<Stream>> streams;
  std::size_t next = 0;
  while (next < lines.size() || !bench.loop.idle()) {
    const std::int64_t time_ms = out.steps * 100;
    for (; next < lines.size() && lines[next].arrival_ms <= time_ms; ++next) {
      const auto prompt = static_cast<std::size_t>(lines[next].input / 64 + 1);
      out.requests.push_back(make_request(prompt, lines[next].output / 4 + 1, next));
      streams.push_back(bench.add(out.requests.back()));
    }
    bench.step();
    ++out.steps;
  }
  out.outcomes.resize(streams.size());
  for (std::size_t i = 0; i < streams.size(); ++i) out.outcomes[i].take(*streams[i]);
  out.stats = bench.loop.stats();
  return out;
}

TEST(Trace, EveryRequestOfARealTraceGetsItsTokens) {
  if (!std::filesystem::exists(trace_path())) {
    GTEST_SKIP() << trace_path() << " is missing (set MOBIUS_TEST_DATA)";
  }
  const auto lines = read_trace(trace_path(), kRequests);
  ASSERT_EQ(lines.size(), kRequests);
  const Replay first = replay(lines);
  ASSERT_EQ(first.outcomes.size(), lines.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const GenerationRequest& request = first.requests[i];
    ASSERT_TRUE(first.outcomes[i].ended());
    EXPECT_EQ(first.outcomes[i].finish().reason, FinishReason::length);
    EXPECT_EQ(
        first.outcomes[i].tokens(),
        expected_tokens(request, simulated_model(), static_cast<std::size_t>(*request.max_tokens)));
  }
  EXPECT_EQ(first.stats.requests_finished, std::ssize(lines));
  EXPECT_EQ(first.stats.pages_used, 0);
  EXPECT_GT(first.stats.preemptions, 10) << "the pool is too large for a test";

  const Replay second = replay(lines);
  EXPECT_EQ(second.steps, first.steps);
  EXPECT_EQ(second.stats.preemptions, first.stats.preemptions);
  RecordProperty("steps", static_cast<int>(first.steps));
  RecordProperty("preemptions", static_cast<int>(first.stats.preemptions));
}

}  // namespace
}  // namespace mobius
