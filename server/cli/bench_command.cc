#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <exception>
#include <fstream>
#include <iostream>
#include <stdexcept>

#include "server/cli/client_options.h"
#include "server/cli/commands.h"
#include "server/cli/load_generator.h"
#include "server/json.h"

namespace mobius {
namespace {

namespace asio = boost::asio;
using Json = nlohmann::ordered_json;

struct BenchOptions {
  ClientOptions client;
  std::string endpoint = "chat";
  std::size_t requests = 0;
  std::size_t concurrency = 1;
  double rate = 0;
  std::string trace;
  TraceOptions trace_options;
  std::string prompt_tokens = "512";
  std::string output_tokens = "64";
  std::uint64_t seed = 0;
  bool ignore_eos = false;
  std::string extra;
  std::string out;
};

void define(CLI::App& app, BenchOptions& options) {
  options.client.silence_seconds = 600;
  options.client.add_to(app);
  app.add_option("--endpoint", options.endpoint, "Chat completions, or text completions")
      ->check(CLI::IsMember({"chat", "completions"}))
      ->capture_default_str();
  app.add_option("--requests,-n", options.requests, "How many; default: 100, or all of a trace")
      ->check(CLI::Range(1, 10000000));
  auto* const concurrency =
      app.add_option("--concurrency,-c", options.concurrency,
                     "Closed loop: so many at a time, each followed by the next")
          ->check(CLI::Range(1, 100000))
          ->capture_default_str();
  auto* const rate = app.add_option("--rate", options.rate,
                                    "Open loop: a Poisson process of so many requests a second")
                         ->check(number_in(1e-6, 1e6))
                         ->excludes(concurrency);
  auto* const trace =
      app.add_option(
             "--trace", options.trace,
             "Open loop: arrivals, lengths and common prefixes of a trace in Mooncake's format")
          ->excludes(concurrency)
          ->excludes(rate);
  app.add_option("--speed", options.trace_options.speed, "Times that the trace plays faster")
      ->check(number_in(1e-6, 1e6))
      ->needs(trace);
  app.add_option("--length-scale", options.trace_options.length_scale,
                 "Factor of the trace's lengths, for a shorter context")
      ->check(number_in(1e-6, 1e3))
      ->needs(trace);
  app.add_option("--skip-longer", options.trace_options.skip_longer,
                 "Leave out requests of more tokens, prompt and answer together")
      ->check(CLI::Range(1, 1 << 30))
      ->needs(trace);
  app.add_option("--prompt-tokens", options.prompt_tokens, "N, or N:M for lengths in between")
      ->excludes(trace)
      ->capture_default_str();
  app.add_option("--output-tokens", options.output_tokens, "Likewise: max_tokens of each request")
      ->excludes(trace)
      ->capture_default_str();
  app.add_option("--seed", options.seed, "The same seed gives the same requests")
      ->capture_default_str();
  app.add_flag("--ignore-eos", options.ignore_eos,
               "Ask for answers of full length (Mobius, vLLM and others; OpenAI refuses it)");
  app.add_option("--extra", options.extra,
                 "JSON object of more members of each request; null takes one away");
  app.add_option("--out,-o", options.out, "File for the results as JSON; -: standard output");
}

Json members_of(const BenchOptions& options, const std::string& model) {
  Json members = {{"model", model}};
  if (options.ignore_eos) members["ignore_eos"] = true;
  if (options.extra.empty()) return members;
  Json extra;
  std::string error;
  if (!parse_json(options.extra, {}, extra, error)) throw std::runtime_error("--extra: " + error);
  if (!extra.is_object()) throw std::runtime_error("--extra: must be a JSON object");
  members.update(extra);
  return members;
}

std::vector<PlannedRequest> plan_of(const BenchOptions& options) {
  if (!options.trace.empty()) {
    TraceOptions trace = options.trace_options;
    trace.most = options.requests;
    return read_trace_plan(options.trace, trace);
  }
  return plan_requests(options.requests > 0 ? options.requests : 100,
                       parse_length_range("--prompt-tokens", options.prompt_tokens),
                       parse_length_range("--output-tokens", options.output_tokens), options.rate,
                       options.seed);
}

Json load_json(const BenchOptions& options) {
  Json load;
  if (!options.trace.empty()) {
    load = {{"kind", "trace"},
            {"trace", std::filesystem::path(options.trace).filename().string()},
            {"speed", options.trace_options.speed},
            {"length_scale", options.trace_options.length_scale}};
  } else if (options.rate > 0) {
    load = {{"kind", "open"}, {"requests_per_s", options.rate}};
  } else {
    load = {{"kind", "closed"}, {"concurrency", options.concurrency}};
  }
  if (options.trace.empty()) {
    load["prompt_tokens"] = options.prompt_tokens;
    load["output_tokens"] = options.output_tokens;
    load["seed"] = options.seed;
  }
  load["endpoint"] = options.endpoint;
  return load;
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

void write(const std::string& path, const Json& report) {
  const std::string text = report.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
  if (path == "-") {
    std::cout << text << std::flush;
    return;
  }
  std::ofstream stream(path);
  stream << text;
  stream.close();
  if (!stream) throw std::runtime_error(path + ": cannot be written");
}

/// Before an hour of load, and without a change to what an earlier one left.
void check_writable(const std::string& path) {
  if (path.empty() || path == "-") return;
  if (!std::ofstream(path, std::ios::app)) throw std::runtime_error(path + ": cannot be written");
}

/// A line on a terminal, once a second.
asio::awaitable<void> show_progress(const LoadGenerator& generator, asio::steady_timer& timer) {
  const std::size_t all = generator.results().size();
  while (true) {
    timer.expires_after(std::chrono::seconds(1));
    const auto [stopped] = co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
    std::cerr << "\r\x1b[K";
    if (stopped) co_return;
    std::cerr << generator.finished() << " of " << all << " requests" << std::flush;
  }
}

}  // namespace

int bench_command(std::span<const char* const> arguments) {
  CLI::App app("Puts a load on a server of OpenAI's API and says how it fared.");
  app.name("mobius bench");
  BenchOptions options;
  define(app, options);
  if (const auto code = parse_arguments(app, arguments)) return *code;
  std::signal(SIGPIPE, SIG_IGN);

  // Everything that can be refused is, before the server is asked for anything.
  std::vector<PlannedRequest> plan = plan_of(options);
  members_of(options, "");
  check_writable(options.out);
  const bool open = !options.trace.empty() || options.rate > 0;
  asio::io_context context(1);
  ApiClient client(context, options.client.api());
  std::unique_ptr<LoadGenerator> generator;
  std::string model;
  asio::steady_timer tick(context);
  asio::signal_set interrupt(context, SIGINT);
  bool stopped = false;
  interrupt.async_wait([&](const boost::system::error_code& failure, int) {
    if (failure) return;
    stopped = true;
    client.abort();
    if (generator != nullptr) generator->stop();
  });
  std::exception_ptr failure;
  const auto work = [&]() -> asio::awaitable<void> {
    model = (co_await find_model(client, options.client.model)).id;
    LoadOptions load;
    load.chat = options.endpoint == "chat";
    load.members = members_of(options, model);
    load.concurrency = open ? 0 : options.concurrency;
    generator = std::make_unique<LoadGenerator>(context, client, std::move(load), std::move(plan));
    co_await generator->calibrate();
    if (stopped) co_return;
    if (isatty(STDERR_FILENO) == 1) {
      asio::co_spawn(context, show_progress(*generator, tick), [](const std::exception_ptr&) {});
    }
    co_await generator->run();
  };
  asio::co_spawn(context, work, [&](std::exception_ptr thrown) {
    failure = std::move(thrown);
    tick.cancel();
    interrupt.cancel();
  });
  context.run();
  if (failure) std::rethrow_exception(failure);
  if (generator == nullptr) return 1;

  Json report = {{"what", "mobius bench"},
                 {"date", utc_now()},
                 {"server", options.client.url},
                 {"model", model},
                 {"load", load_json(options)}};
  report.update(load_report(generator->results(), generator->seconds()));
  if (stopped) report["stopped_early"] = true;
  if (!options.out.empty()) write(options.out, report);
  if (options.out != "-") std::cout << report_text(report);
  return report["requests"]["succeeded"] > 0 && !stopped ? 0 : 1;
}

}  // namespace mobius
