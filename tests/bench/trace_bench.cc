// Plays the Mooncake trace of conversations against the real scheduler and prefix cache on an
// imagined device (tests/unit/engine/replay.h): how much of the prompts the cache finds at several
// sizes, beside a cache that holds everything, and what chunks sized for inter-token latency do.
// Simulated time: the machine that runs this does not matter, and neither does its load.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/unit/engine/replay.h"
#include "tests/unit/engine/trace.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

double rounded(double value, double parts) {
  return std::round(value * parts) / parts;
}

double percentile(std::vector<double>& values, double share) {
  if (values.empty()) return 0;
  const auto index = static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::ranges::nth_element(values, values.begin() + index);
  return values[static_cast<std::size_t>(index)];
}

struct Case {
  std::int64_t pool_tokens;  // 0: everything fits
  std::int64_t itl_target_ms;
};

Json run(const std::vector<TraceRequest>& trace, const Case& one, double stretch) {
  ReplayOptions options;
  options.limits.page_tokens = 128;
  options.limits.max_running = 64;
  options.limits.step_rows = 512;
  std::int64_t all = 0;
  for (const TraceRequest& request : trace) all += request.input + request.output + 128;
  const std::int64_t tokens = one.pool_tokens > 0 ? one.pool_tokens : all;
  options.limits.num_pages = static_cast<std::int32_t>(tokens / options.limits.page_tokens);
  options.itl_target = std::chrono::milliseconds(one.itl_target_ms);
  options.stretch = stretch;
  options.check_every = 2000;
  const auto start = std::chrono::steady_clock::now();
  ReplayResult result = replay(trace, options);
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start;
  if (!result.violation.empty()) throw std::runtime_error(result.violation);
  Json row = {{"pool_tokens", one.pool_tokens == 0 ? Json("unlimited") : Json(one.pool_tokens)},
              {"itl_target_ms", one.itl_target_ms},
              {"hit_rate", rounded(result.hit_rate(), 10000)},
              {"ideal_hit_rate", rounded(result.ideal_rate(), 10000)},
              {"steps", result.steps},
              {"computed_rows", result.computed_rows},
              {"preemptions", result.preemptions},
              {"evicted_pages", result.evictions},
              {"longest_pause_of_the_oldest_steps", result.longest_pause},
              {"simulated_seconds", rounded(result.seconds, 10)},
              {"ttft_seconds_p50", rounded(percentile(result.ttft, 0.5), 1000)},
              {"ttft_seconds_p99", rounded(percentile(result.ttft, 0.99), 1000)},
              {"itl_ms_p50", rounded(1000 * percentile(result.itl, 0.5), 100)},
              {"itl_ms_p99", rounded(1000 * percentile(result.itl, 0.99), 100)},
              {"itl_ms_max", rounded(1000 * percentile(result.itl, 1.0), 100)},
              {"wall_seconds", rounded(wall.count(), 10)}};
  std::cerr << row.dump() << '\n';
  return row;
}

int main_of(int argc, char** argv) {
  CLI::App app("Replays a trace against the scheduler and the prefix cache in simulated time.");
  std::string file;
  std::string out;
  std::size_t count = 1000000;
  double stretch = 2;
  app.add_option("--trace", file, "Trace in Mooncake's format; default: under MOBIUS_TEST_DATA.");
  app.add_option("--out", out, "File for the results as JSON; default: standard output.");
  app.add_option("--requests", count, "Play the first ones only.");
  app.add_option("--stretch", stretch, "Times that arrivals lie further apart than in the trace.");
  CLI11_PARSE(app, argc, argv);
  if (file.empty()) {
    const auto found = mooncake_trace();
    if (!found) {
      std::cerr << "trace_bench: no trace; set MOBIUS_TEST_DATA or --trace\n";
      return 1;
    }
    file = *found;
  }
  const auto trace = read_trace(file, count);
  const StepCost cost;
  Json results = {
      {"what", "Mooncake conversation trace, scheduler and prefix cache, simulated device"},
      {"command", "trace_bench --stretch " + Json(stretch).dump() +
                      (count < trace.size() + 1 ? " --requests " + std::to_string(count) : "")},
      {"requests", trace.size()},
      {"page_tokens", 128},
      {"max_running", 64},
      {"step_tokens", 512},
      {"step_cost",
       {{"base_us", cost.base.count() / 1000},
        {"row_ns", cost.row_ns},
        {"prefill_key_ns", cost.prefill_key_ns},
        {"prefill_keys_at_most", cost.prefill_keys},
        {"decode_key_ns", cost.decode_key_ns}}},
      {"rows", Json::array()}};
  for (const Case& one : {Case{0, 0}, Case{1'000'000, 0}, Case{2'000'000, 0}, Case{4'000'000, 0},
                          Case{16'000'000, 0}, Case{4'000'000, 30}, Case{4'000'000, 20}}) {
    results["rows"].push_back(run(trace, one, stretch));
  }
  if (out.empty()) {
    std::cout << results.dump(2) << '\n';
    return 0;
  }
  std::ofstream stream(out);
  stream << results.dump(2) << '\n';
  if (!stream) throw std::runtime_error(out + " cannot be written");
  return 0;
}

}  // namespace
}  // namespace mobius

int main(int argc, char** argv) {
  try {
    return mobius::main_of(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "trace_bench: " << error.what() << '\n';
    return 1;
  }
}
