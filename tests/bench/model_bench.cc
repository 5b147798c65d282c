// Prefill and decode of a whole model on the CPU, full attention against MoBA (512/8), with the
// machine's own limits beside them.
//
//   model_bench --model FOLDER --out FILE [--commit ID] [--longest 65536] [--threads N]
//   model_bench --model FOLDER --out FILE --like-peer    (only what README.md compares with a peer)
//
// Long contexts: keys and values before the timed tokens are random numbers, appended through the
// backend without running the model over them. The timed steps compute everything. Prefill at a
// context is timed on the last 512 tokens alone.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <ctime>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "models/checkpoint.h"
#include "models/llama.h"
#include "models/llama_config.h"
#include "models/memory_plan.h"
#include "tests/bench/ceilings.h"

namespace mobius {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

constexpr std::int32_t kPage = 128;
constexpr std::int32_t kChunk = 512;
constexpr std::int32_t kDecodeRounds = 12;
const AttentionPolicy kFull = AttentionPolicy::full();
const AttentionPolicy kMoba = AttentionPolicy::moba(512, 8);

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Seconds of processor time that this process has used, all threads together.
double processor_seconds() {
  std::timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// A loaded model with one sequence as long as the pool.
class Bench {
 public:
  Bench(const std::filesystem::path& folder, std::int32_t context, std::int32_t threads)
      : config_(load_llama_config(folder)),
        checkpoint_(folder),
        backend_(make_cpu_backend(threads)) {
    ModelOptions options;
    options.folder = folder;
    options.page_tokens = kPage;
    options.centroid_block = kMoba.block;
    options.step_tokens = kChunk;
    options.max_sequences = 1;
    const DType compute = compute_dtype(options, config_.dtype);
    KvShape kv = {config_.num_layers, context / kPage, kPage,      config_.num_kv_heads,
                  config_.head_dim,   compute,         kMoba.block};
    options.kv_cache_bytes = backend_->kv_bytes(kv);
    plan_ = plan_memory(options, config_, config_.dtype,
                        check_weights(config_, checkpoint_, compute), *backend_);
    const auto start = Clock::now();
    checkpoint_.prefault();
    llama_.emplace(config_, checkpoint_, plan_, *backend_);
    backend_->reserve_workspace(plan_.model, plan_.kv, plan_.limits);
    kv_ = backend_->create_kv_pool(plan_.kv);
    load_seconds_ = seconds_since(start);
    // Pages in no particular order, as in a server that has run for a while.
    pages_.resize(static_cast<std::size_t>(plan_.kv.num_pages));
    std::iota(pages_.begin(), pages_.end(), 0);
    std::shuffle(pages_.begin(), pages_.end(), random_);
  }

  const LlamaConfig& config() const { return config_; }
  const MemoryPlan& plan() const { return plan_; }
  Backend& backend() { return *backend_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }
  double load_seconds() const { return load_seconds_; }

  /// Seconds for `rows` tokens after `context` others, the next token included.
  double step(std::int32_t rows, std::int32_t context, const AttentionPolicy& policy) {
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(rows));
    std::uniform_int_distribution<std::int32_t> any(0, config_.vocab_size - 1);
    for (std::int32_t& token : tokens) token = any(random_);
    const SequenceSlice slice{0, rows, context, pages_, policy, 0};
    SamplingParams greedy;
    greedy.temperature = 0;
    SampleRow sample;
    sample.params = &greedy;
    const std::int32_t last = rows - 1;
    SampledToken sampled;
    const auto start = Clock::now();
    const Tensor logits =
        llama_->forward({tokens, std::span(&slice, 1), std::span(&last, 1)}, *kv_);
    backend_->sample(std::span(&sampled, 1), logits, std::span(&sample, 1));
    backend_->wait();
    return seconds_since(start);
  }

  /// Fills the cache with random keys and values up to `context`.
  void fill(std::int32_t context) {
    const std::int64_t columns =
        std::int64_t{config_.num_heads + 2 * config_.num_kv_heads} * config_.head_dim;
    const std::int64_t query = std::int64_t{config_.num_heads} * config_.head_dim;
    std::vector<float> qkv(static_cast<std::size_t>(kChunk * columns));
    std::vector<float> q(static_cast<std::size_t>(kChunk * query));
    std::normal_distribution<float> normal;
    for (float& value : qkv) value = normal(random_);
    const std::vector<float> frequencies = rope_inverse_frequencies(config_);
    const HostTensor row{frequencies.data(), DType::f32, 1,
                         static_cast<std::int64_t>(frequencies.size())};
    const Weight rotation = backend_->load_weight(std::span(&row, 1), DType::f32);
    std::vector<std::int32_t> tokens(kChunk);
    for (; filled_ < context; filled_ += kChunk) {
      const SequenceSlice slice{0, kChunk, filled_, pages_, kFull, 0};
      const StepView view{tokens, std::span(&slice, 1), {}};
      for (std::int32_t layer = 0; layer < config_.num_layers; ++layer) {
        // New numbers at little cost: the old ones, moved along.
        std::rotate(qkv.begin(), qkv.begin() + 1237, qkv.end());
        backend_->begin_step(view);
        backend_->rope_append({q.data(), plan_.kv.dtype, kChunk, query},
                              {qkv.data(), DType::f32, kChunk, columns}, *kv_, layer, rotation);
      }
    }
  }

 private:
  LlamaConfig config_;
  Checkpoint checkpoint_;
  std::unique_ptr<Backend> backend_;
  MemoryPlan plan_;
  std::optional<Llama> llama_;
  std::unique_ptr<KvPool> kv_;
  std::vector<PageId> pages_;
  std::mt19937 random_{1};
  std::int32_t filled_ = 0;
  double load_seconds_ = 0;
};

/// Rows of the report. `peer` is what llama.cpp (BF16, flash attention) does on the same two
/// AVX-512 cores, where it was measured; `bar` the multiple of it to reach.
class Report {
 public:
  /// `has_peer`: whether the model is the one that the peer was measured on.
  Report(std::int32_t threads, bool has_peer) : threads_(threads), has_peer_(has_peer) {}

  void add(const std::string& name, double tokens, std::vector<double> seconds,
           std::optional<double> peer = std::nullopt, double bar = 1) {
    const double rate = tokens / median(seconds);
    const double share = take_processor_share();
    ordered_json row = {{"name", name},
                        {"tokens_per_second", rounded(rate)},
                        {"milliseconds", rounded(median(seconds) * 1e3)},
                        {"samples", seconds.size()},
                        {"processor_share", rounded(share)},
                        {"best_tokens_per_second",
                         rounded(tokens / *std::min_element(seconds.begin(), seconds.end()))}};
    std::printf("%-32s %9.2f tokens/s %10.1f ms  processors %3.0f%%", name.c_str(), rate,
                median(seconds) * 1e3, share * 100);
    if (!floor_.empty()) {
      row["times_floor"] = rounded(median(seconds) / median(floor_));
      std::printf("   %5.2fx reading the weights", median(seconds) / median(floor_));
    }
    if (peer && has_peer_) {
      row["peer_tokens_per_second"] = *peer;
      row["times_peer"] = rounded(rate / *peer);
      row["bar_times_peer"] = bar;
      std::printf("   %5.2fx peer (bar %.1fx)", rate / *peer, bar);
    }
    std::printf("\n");
    std::fflush(stdout);
    rows_.push_back(row);
  }
  /// Decode steps are short and memory's speed drifts, above all on virtual machines: rows that are
  /// to be compared are measured in turn and share what the processors did. `floor`: seconds that
  /// reading the weights once took meanwhile.
  void begin_interleaved(std::vector<double> floor) {
    floor_ = std::move(floor);
    shared_share_ = take_processor_share();
  }
  const ordered_json& rows() const { return rows_; }

  static double rounded(double value) { return std::stod(format(value)); }

 private:
  /// Processor time since the last row against what all threads could have had. Well below 1:
  /// something else was running, and the row says little.
  double take_processor_share() {
    if (shared_share_) return *shared_share_;
    const double share = (processor_seconds() - last_processor_) /
                         (seconds_since(last_wall_) * static_cast<double>(threads_));
    last_processor_ = processor_seconds();
    last_wall_ = Clock::now();
    return share;
  }

  static std::string format(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.5g", value);
    return text;
  }
  std::int32_t threads_;
  bool has_peer_;
  double last_processor_ = processor_seconds();
  Clock::time_point last_wall_ = Clock::now();
  std::optional<double> shared_share_;
  std::vector<double> floor_;
  ordered_json rows_ = ordered_json::array();
};

std::vector<double> repeat(int times, const auto& measure) {
  std::vector<double> seconds;
  for (int i = 0; i < times; ++i) seconds.push_back(measure());
  return seconds;
}

std::vector<double> prefill(Bench& bench, std::int32_t tokens, std::int32_t context,
                            const AttentionPolicy& policy, int times) {
  return repeat(times, [&] {
    double seconds = 0;
    for (std::int32_t done = 0; done < tokens; done += kChunk) {
      seconds += bench.step(std::min(kChunk, tokens - done), context + done, policy);
    }
    return seconds;
  });
}

void measure_like_the_peer(Bench& bench, Report& report) {
  bench.step(kChunk, 0, kFull);  // warm
  report.add("prefill/full/512", 512, prefill(bench, 512, 0, kFull, 3), 144);
  report.add("prefill/full/2048", 2048, prefill(bench, 2048, 0, kFull, 1), 91);
  bench.fill(8192);
  report.add("prefill/full/512_behind_8192", 512, prefill(bench, 512, 8192, kFull, 2), 20.5);
  report.add("prefill/moba/512_behind_8192", 512, prefill(bench, 512, 8192, kMoba, 3), 20.5, 4);
}

void measure_contexts(Bench& bench, Report& report, std::int32_t longest) {
  for (std::int32_t context = 4096; context <= longest; context *= 2) {
    bench.fill(context);
    const std::string suffix = "/at_" + std::to_string(context);
    const std::int32_t before = context - kChunk;
    report.add("prefill/moba/last_512" + suffix, 512, prefill(bench, 512, before, kMoba, 1));
    report.add("prefill/full/last_512" + suffix, 512, prefill(bench, 512, before, kFull, 1));
  }
}

/// One token of every kind in turn, again and again, beside the time that reading the weights
/// takes.
void measure_decode(Bench& bench, Report& report, std::int32_t longest, std::int32_t threads) {
  struct Case {
    std::string name;
    std::int32_t context;
    AttentionPolicy policy;
    std::optional<double> peer;
    double bar = 1;
    std::vector<double> seconds;
  };
  std::vector<Case> cases = {{"decode/full/short", 512, kFull, 13.2, 1, {}}};
  for (std::int32_t context = 4096; context <= longest; context *= 2) {
    const bool like_peer = context == 8192;
    const std::optional<double> peer = like_peer ? std::optional(7.5) : std::nullopt;
    const std::string where = (like_peer ? "behind_" : "at_") + std::to_string(context);
    cases.push_back({"decode/full/" + where, context, kFull, peer, 1, {}});
    cases.push_back({"decode/moba/" + where, context, kMoba, peer, 1.5, {}});
  }
  bench.fill(longest);
  const SafetensorsFile& file = bench.checkpoint().files().front();
  const std::span<const std::byte> weights(file.data({}), file.bytes());
  std::vector<double> floor;
  for (std::int32_t round = 0; round < kDecodeRounds; ++round) {
    floor.push_back(static_cast<double>(weights.size()) / read_bandwidth(weights, threads));
    // Every round writes the same token behind each context, so that all rounds read as much.
    for (Case& each : cases) {
      each.seconds.push_back(bench.step(1, each.context, each.policy));
    }
  }
  report.begin_interleaved(std::move(floor));
  for (const Case& each : cases) report.add(each.name, 1, each.seconds, each.peer, each.bar);
}

ordered_json measure_limits(Bench& bench, std::int32_t threads) {
  const SafetensorsFile& file = bench.checkpoint().files().front();
  const std::span<const std::byte> bytes(file.data({}), file.bytes());
  read_bandwidth(bytes, threads);
  const double bandwidth = read_bandwidth(bytes, threads);
  const DType compute = bench.plan().model.activation;
  const HostTensor tensor =
      bench.checkpoint().matrix("model.layers.0.mlp.gate_proj.weight",
                                bench.config().intermediate_size, bench.config().hidden_size);
  const Weight weight = bench.backend().load_weight(std::span(&tensor, 1), compute);
  const double weights =
      static_cast<double>(bench.plan().weights.mapped_bytes + bench.plan().weights.copied_bytes);
  ordered_json limits = {
      {"read_gigabytes_per_second", Report::rounded(bandwidth / 1e9)},
      {"decode_tokens_per_second_if_weights_alone_were_read", Report::rounded(bandwidth / weights)},
      {"peak_gigaflops", Report::rounded(peak_flops(threads) / 1e9)},
      {"matmul_512_rows_gigaflops",
       Report::rounded(matmul_flops(bench.backend(), weight, compute, kChunk) / 1e9)}};
  std::cout << limits.dump(2) << std::endl;
  return limits;
}

ordered_json measure_memory(const Bench& bench) {
  const MemoryPlan& plan = bench.plan();
  const double weights = static_cast<double>(plan.weights.mapped_bytes + plan.weights.copied_bytes);
  const double resident = static_cast<double>(resident_bytes());
  const double expected = weights + static_cast<double>(plan.kv_bytes);
  ordered_json memory = {
      {"weights_bytes", weights},
      {"kv_bytes", plan.kv_bytes},
      {"workspace_bytes", plan.workspace_bytes},
      {"planned_bytes", plan.total_bytes()},
      {"resident_bytes", resident},
      {"resident_to_weights_and_kv", Report::rounded(resident / expected)},
      {"resident_to_plan", Report::rounded(resident / static_cast<double>(plan.total_bytes()))}};
  std::cout << memory.dump(2) << std::endl;
  return memory;
}

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

std::string now() {
  const std::time_t seconds = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

struct Arguments {
  std::string model;
  std::string out;
  std::string commit = "unknown";
  std::int32_t longest = 65536;
  bool like_peer = false;
  bool decode_only = false;
  std::int32_t threads = 0;
};

void run(Arguments arguments) {
  if (arguments.like_peer) arguments.longest = 8192;
  // Room for the tokens that are decoded behind the longest context.
  Bench bench(arguments.model, std::max(arguments.longest, 8192 + kChunk) + kPage,
              arguments.threads);
  std::cout << render(bench.plan());
  const std::int32_t threads = bench.backend().info().threads;
  ordered_json document = {{"benchmark", "model_cpu"},
                           {"date", now()},
                           {"commit", arguments.commit},
                           {"machine",
                            {{"processor", processor()},
                             {"device", bench.backend().info().name},
                             {"hardware_threads", std::thread::hardware_concurrency()}}},
                           {"model",
                            {{"layers", bench.config().num_layers},
                             {"hidden", bench.config().hidden_size},
                             {"heads", bench.config().num_heads},
                             {"kv_heads", bench.config().num_kv_heads},
                             {"head_dim", bench.config().head_dim},
                             {"intermediate", bench.config().intermediate_size},
                             {"vocabulary", bench.config().vocab_size},
                             {"type", name_of(bench.plan().model.activation)}}},
                           {"load_seconds", Report::rounded(bench.load_seconds())}};
  bench.step(kChunk, 0, kFull);
  document["memory"] = measure_memory(bench);
  document["limits"] = measure_limits(bench, threads);
  const LlamaConfig& config = bench.config();
  Report report(threads, config.num_layers == 16 && config.hidden_size == 2048 &&
                             config.intermediate_size == 8192 && config.vocab_size == 128256);
  if (!arguments.decode_only) measure_like_the_peer(bench, report);
  if (!arguments.like_peer && !arguments.decode_only)
    measure_contexts(bench, report, arguments.longest);
  measure_decode(bench, report, arguments.longest, threads);
  document["peer"] = "llama.cpp, BF16, flash attention, two AVX-512 cores";
  document["results"] = report.rows();
  std::ofstream file(arguments.out);
  file << document.dump(2) << '\n';
  if (!file) throw std::runtime_error(arguments.out + ": cannot write");
}

}  // namespace
}  // namespace mobius

int main(int argc, char** argv) {
  CLI::App app("Prefill and decode of a whole model on the CPU.");
  mobius::Arguments arguments;
  app.add_option("--model", arguments.model, "checkpoint folder")->required();
  app.add_option("--out", arguments.out, "JSON file to write")->required();
  app.add_option("--commit", arguments.commit, "what was measured, for the report");
  app.add_option("--longest", arguments.longest, "longest context")
      ->check(CLI::Range(4096, 1 << 20));
  app.add_flag("--like-peer", arguments.like_peer, "only what a peer was measured on");
  app.add_flag("--decode-only", arguments.decode_only,
               "no prefill: short enough to take turns with a peer");
  app.add_option("--threads", arguments.threads, "0: every core")->check(CLI::Range(0, 1024));
  CLI11_PARSE(app, argc, argv);
  try {
    mobius::run(arguments);
  } catch (const std::exception& error) {
    std::cerr << "model_bench: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
