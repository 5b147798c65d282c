#include "server/metrics/exposition.h"

#include <utility>

namespace mobius {
namespace {

/// `text` between quotation marks of a label.
std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '\\' || c == '"') result += '\\';
    if (c == '\n') {
      result += "\\n";
    } else {
      result += c;
    }
  }
  return result;
}

std::string label(std::string_view name, std::string_view value) {
  return std::string(name) + "=\"" + escaped(value) + '"';
}

class Page {
 public:
  explicit Page(std::string_view model_name)
      : model_(label("model", model_name)), vllm_model_(label("model_name", model_name)) {}

  /// Begins a metric; series follow.
  void metric(std::string_view name, std::string_view type, std::string_view help) {
    name_ = name;
    labels_ = name.starts_with("vllm:") ? &vllm_model_ : &model_;
    text_.append("# HELP ").append(name).append(" ").append(help).append("\n# TYPE ");
    text_.append(name).append(" ").append(type).append("\n");
  }
  void series(double value, const std::string& more = {}) {
    text_.append(name_).append("{").append(*labels_);
    if (!more.empty()) text_.append(",").append(more);
    text_.append("} ").append(prometheus_number(value)).append("\n");
  }
  void series(const DurationCounts& durations) {
    render_histogram(text_, name_, *labels_, durations);
  }
  void series(const Histogram& histogram) { series(histogram.counts()); }

  /// The same value under our name and under vLLM's.
  template <typename Value>
  void twice(std::string_view name, std::string_view vllm_name, std::string_view type,
             std::string_view help, const Value& value) {
    for (const std::string_view each : {name, vllm_name}) {
      metric(each, type, help);
      series(value);
    }
  }

  std::string take() { return std::move(text_); }

 private:
  std::string model_;
  std::string vllm_model_;
  std::string name_;
  const std::string* labels_ = nullptr;
  std::string text_;
};

double number(const GenerationMetrics::Counter& counter) {
  return static_cast<double>(counter.load(std::memory_order_relaxed));
}

void engine_metrics(Page& page, const EngineStats& engine, const RunnerInfo& model) {
  page.twice("mobius_requests_running", "vllm:num_requests_running", "gauge",
             "Requests that share the current steps.", double(engine.running));
  page.twice("mobius_requests_waiting", "vllm:num_requests_waiting", "gauge",
             "Requests that the engine has taken and not begun.", double(engine.waiting));
  page.metric("mobius_waiting_tokens", "gauge", "Tokens of those that wait.");
  page.series(double(engine.waiting_tokens));
  const double used = engine.pages_used;
  const double total = engine.pages_total;
  page.twice("mobius_kv_cache_usage_ratio", "vllm:kv_cache_usage_perc", "gauge",
             "Share of KV pages in use, 0 to 1.", total > 0 ? used / total : 0.0);
  page.metric("mobius_kv_pages", "gauge", "KV pages.");
  page.series(used, label("state", "used"));
  page.series(engine.pages_cached, label("state", "cached"));
  page.series(total - used - engine.pages_cached, label("state", "free"));
  page.metric("mobius_kv_page_tokens", "gauge", "Tokens of a KV page.");
  page.series(model.page_tokens);
  page.metric("vllm:cache_config_info", "gauge", "Shape of the KV cache, as labels.");
  page.series(1, label("block_size", std::to_string(model.page_tokens)) + ',' +
                     label("num_gpu_blocks", std::to_string(engine.pages_total)));
  page.twice("mobius_prompt_tokens_total", "vllm:prompt_tokens_total", "counter",
             "Prompt tokens computed.", double(engine.prompt_tokens));
  page.twice("mobius_generated_tokens_total", "vllm:generation_tokens_total", "counter",
             "Tokens generated.", double(engine.generated_tokens));
  page.twice("mobius_preemptions_total", "vllm:num_preemptions_total", "counter",
             "Times that a running request gave up its KV pages.", double(engine.preemptions));
}

void outcomes(Page& page, const GenerationMetrics& metrics) {
  page.metric("mobius_generations_total", "counter", "Generations that ended, by outcome.");
  page.series(number(metrics.stopped), label("outcome", "stop"));
  page.series(number(metrics.reached_length), label("outcome", "length"));
  for (std::size_t code = 0; code < GenerationMetrics::kCodes; ++code) {
    const double count = number(metrics.failed[code]);
    if (count > 0) page.series(count, label("outcome", name_of(static_cast<StatusCode>(code))));
  }
  page.metric("vllm:request_success_total", "counter", "Generations that ended well, by reason.");
  page.series(number(metrics.stopped), label("finished_reason", "stop"));
  page.series(number(metrics.reached_length), label("finished_reason", "length"));

  page.metric("mobius_requests_refused_total", "counter",
              "Requests answered with an error before any token was computed, by error.");
  for (std::size_t code = 0; code < GenerationMetrics::kCodes; ++code) {
    const double count = number(metrics.refusals[code]);
    if (count > 0) page.series(count, label("code", name_of(static_cast<StatusCode>(code))));
  }
}

void latencies(Page& page, const GenerationMetrics& metrics, const EngineStats& engine) {
  page.twice("mobius_queue_seconds", "vllm:request_queue_time_seconds", "histogram",
             "From a request's arrival in the engine to its first computed row.", metrics.queue);
  page.twice("mobius_time_to_first_token_seconds", "vllm:time_to_first_token_seconds", "histogram",
             "From a request's arrival in the engine to its first token.",
             metrics.time_to_first_token);
  page.twice("mobius_prefill_seconds", "vllm:request_prefill_time_seconds", "histogram",
             "From a request's first computed row to its first token.", metrics.prefill);
  page.twice("mobius_decode_seconds", "vllm:request_decode_time_seconds", "histogram",
             "From a request's first token to its end.", metrics.decode);
  page.twice("mobius_inter_token_latency_seconds", "vllm:inter_token_latency_seconds", "histogram",
             "Between one generated token of a request and its next.", engine.token_gaps);
  page.twice("mobius_time_per_output_token_seconds", "vllm:request_time_per_output_token_seconds",
             "histogram", "Mean time between a generation's tokens after the first.",
             metrics.time_per_output_token);
  page.twice("mobius_generation_seconds", "vllm:e2e_request_latency_seconds", "histogram",
             "From a request's arrival in the engine to its end, of those that ended well.",
             metrics.generation);
}

}  // namespace

std::string render_metrics(const GenerationMetrics& metrics, const EngineStats& engine,
                           const RunnerInfo& model, std::string_view model_name, bool ready) {
  Page page(model_name);
  page.metric("mobius_ready", "gauge", "1 when requests are accepted.");
  page.series(ready ? 1 : 0);
  engine_metrics(page, engine, model);
  page.twice("mobius_prefix_cache_queried_tokens_total", "vllm:prefix_cache_queries_total",
             "counter", "Prompt tokens of ended generations.", number(metrics.prompt_tokens));
  page.twice("mobius_prefix_cache_hit_tokens_total", "vllm:prefix_cache_hits_total", "counter",
             "Of those, tokens taken from the prefix cache.", number(metrics.cached_tokens));
  outcomes(page, metrics);
  latencies(page, metrics, engine);
  constexpr std::array<std::string_view, 2> kPhases = {"prefill", "decode"};
  page.metric("mobius_moba_blocks_read_total", "counter",
              "KV blocks that queries read, summed over layers and heads, by phase.");
  for (std::size_t i = 0; i < 2; ++i) {
    page.series(number(metrics.blocks_read[i]), label("phase", kPhases[i]));
  }
  page.metric("mobius_moba_blocks_total", "counter",
              "KV blocks that full attention would have read, likewise.");
  for (std::size_t i = 0; i < 2; ++i) {
    page.series(number(metrics.blocks_total[i]), label("phase", kPhases[i]));
  }
  return page.take();
}

}  // namespace mobius
