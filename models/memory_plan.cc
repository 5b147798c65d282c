#include "models/memory_plan.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <limits>
#include <stdexcept>

#include "models/llama.h"

namespace mobius {
namespace {

constexpr std::int32_t kMaxPageTokens = 4096;
constexpr std::int32_t kMaxStepTokens = 1 << 16;
constexpr std::int32_t kMaxSequences = 1 << 14;
/// Sequences of the longest context that the default cache has room for, and its share of memory.
constexpr std::int32_t kDefaultSequences = 2;
constexpr std::size_t kDefaultPercent = 80;

[[noreturn]] void fail(const std::string& message) {
  throw std::runtime_error(message);
}

std::string size_text(std::size_t bytes) {
  static constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024.0 && unit + 1 < kUnits.size(); ++unit) value /= 1024.0;
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.2f %s", value, kUnits[unit]);
  return text.data();
}

void check_range(const char* name, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value >= low && value <= high) return;
  fail(std::string(name) + " is " + std::to_string(value) + ", must be from " +
       std::to_string(low) + " to " + std::to_string(high));
}

void check_options(const ModelOptions& options, const LlamaConfig& config, DType compute) {
  if (compute == DType::f16) fail("model.dtype is f16, must be bf16 or f32");
  check_range("kv.page_tokens", options.page_tokens, 1, kMaxPageTokens);
  check_range("engine.step_tokens", options.step_tokens, 1, kMaxStepTokens);
  check_range("engine.max_running", options.max_sequences, 1, kMaxSequences);
  check_range("model.max_context", options.max_context, 0, config.max_position_embeddings);
  check_range("centroid_block", options.centroid_block, 0, 1 << 24);
  if (options.centroid_block != 0) {
    const auto policy = AttentionPolicy::moba(options.centroid_block, 1);
    const std::string problem = validate(policy, options.page_tokens);
    if (!problem.empty()) fail("centroid_block: " + problem);
  }
}

/// The most pages, up to `limit`, whose pool fits into `bytes`.
std::int32_t pages_that_fit(const Backend& backend, KvShape shape, std::int32_t limit,
                            std::size_t bytes) {
  std::int32_t fits = 0;
  std::int32_t too_many = limit;
  const auto fit = [&](std::int32_t pages) {
    shape.num_pages = pages;
    return backend.kv_bytes(shape) <= bytes;
  };
  if (limit > 0 && fit(limit)) return limit;
  while (too_many - fits > 1) {
    const std::int32_t middle = fits + (too_many - fits) / 2;
    (fit(middle) ? fits : too_many) = middle;
  }
  return fits;
}

std::int32_t pages_for(std::int64_t tokens, std::int32_t page_tokens) {
  const std::int64_t pages = (tokens + page_tokens - 1) / page_tokens;
  return static_cast<std::int32_t>(
      std::min<std::int64_t>(pages, std::numeric_limits<std::int32_t>::max()));
}

}  // namespace

DType compute_dtype(const ModelOptions& options, DType stored) {
  return options.compute_dtype.value_or(stored == DType::f16 ? DType::f32 : stored);
}

MemoryPlan plan_memory(const ModelOptions& options, const LlamaConfig& config, DType stored,
                       const WeightMemory& weights, const Backend& backend) {
  const DType compute = compute_dtype(options, stored);
  check_options(options, config, compute);
  const BackendInfo device = backend.info();
  if (options.fp8_weights && !device.fp8_weights) {
    fail("model.quantization is fp8, must be none with " + device.name +
         ": only the CUDA backend computes with fp8 weights");
  }
  MemoryPlan plan;
  plan.device = device.name;
  plan.memory_bytes = device.memory_bytes;
  plan.weights = weights;
  plan.model_context = config.max_position_embeddings;
  plan.model = model_shape(config, compute, options.fp8_weights);
  const std::int32_t wanted_context =
      options.max_context > 0 ? options.max_context : config.max_position_embeddings;
  plan.limits = {.max_rows = options.step_tokens,
                 .max_sequences = options.max_sequences,
                 .max_context = wanted_context};
  plan.kv = {.num_layers = config.num_layers,
             .num_pages = pages_for(wanted_context, options.page_tokens),
             .page_tokens = options.page_tokens,
             .kv_heads = config.num_kv_heads,
             .head_dim = config.head_dim,
             .dtype = compute,
             .centroid_block = options.centroid_block,
             .fp8 = options.fp8_kv};
  const std::int32_t pages_of_one = plan.kv.num_pages;

  const std::size_t weight_bytes = weights.mapped_bytes + weights.copied_bytes;
  const std::size_t activations = activation_bytes(plan.model, plan.limits);
  plan.workspace_bytes = activations + backend.workspace_bytes(plan.model, plan.kv, plan.limits);
  if (weight_bytes > device.memory_bytes ||
      plan.workspace_bytes > device.memory_bytes - weight_bytes) {
    fail("the model does not fit: weights " + size_text(weight_bytes) + " and workspace " +
         size_text(plan.workspace_bytes) +
         " for engine.step_tokens = " + std::to_string(options.step_tokens) + ", but " +
         device.name + " has " + size_text(device.memory_bytes) + " of memory");
  }
  const std::size_t left = device.memory_bytes - weight_bytes - plan.workspace_bytes;
  if (options.kv_cache_bytes > left) {
    fail("kv.bytes is " + std::to_string(options.kv_cache_bytes) + " (" +
         size_text(options.kv_cache_bytes) + "), but weights and workspace leave " +
         size_text(left) + " of " + size_text(device.memory_bytes));
  }
  const bool chosen = options.kv_cache_bytes > 0;
  const std::size_t budget = chosen ? options.kv_cache_bytes : left / 100 * kDefaultPercent;
  const std::int32_t most_pages =
      chosen ? std::numeric_limits<std::int32_t>::max() / options.page_tokens
             : pages_for(std::int64_t{kDefaultSequences} * wanted_context, options.page_tokens);
  plan.kv.num_pages = pages_that_fit(backend, plan.kv, most_pages, budget);

  const std::int64_t cached = std::int64_t{plan.kv.num_pages} * options.page_tokens;
  const std::string cache_text = chosen ? "kv.bytes = " + std::to_string(options.kv_cache_bytes)
                                        : "the " + size_text(budget) + " left for the KV cache";
  if (plan.kv.num_pages < 1) {
    KvShape page = plan.kv;
    page.num_pages = 1;
    fail(cache_text + " cannot hold one page of " + std::to_string(options.page_tokens) +
         " tokens (" + size_text(backend.kv_bytes(page)) + ")");
  }
  if (options.max_context > 0 && plan.kv.num_pages < pages_of_one) {
    fail("model.max_context is " + std::to_string(options.max_context) + " tokens, but " +
         cache_text + " holds " + std::to_string(cached));
  }
  plan.limits.max_context =
      static_cast<std::int32_t>(std::min<std::int64_t>(wanted_context, cached));
  plan.kv_bytes = backend.kv_bytes(plan.kv);
  plan.workspace_bytes = activations + backend.workspace_bytes(plan.model, plan.kv, plan.limits);
  return plan;
}

std::string render(const MemoryPlan& plan) {
  std::string table;
  const auto line = [&](const char* name, const std::string& amount, const std::string& note) {
    std::array<char, 256> text{};
    std::snprintf(text.data(), text.size(), "%-16s %14s  %s", name, amount.c_str(), note.c_str());
    table += text.data();
    while (table.back() == ' ') table.pop_back();
    table += '\n';
  };
  const std::string dtype(name_of(plan.model.activation));
  const std::string copied = plan.model.fp8_weights ? "copied from the checkpoint, fp8 in products"
                                                    : "copied from the checkpoint";
  line("memory", size_text(plan.memory_bytes), plan.device);
  if (plan.weights.mapped_bytes > 0) {
    line("weights", size_text(plan.weights.mapped_bytes), "mapped from the checkpoint");
  }
  if (plan.weights.copied_bytes > 0) {
    line(plan.weights.mapped_bytes > 0 ? "" : "weights", size_text(plan.weights.copied_bytes),
         copied);
  }
  line("workspace", size_text(plan.workspace_bytes),
       dtype + ", steps of up to " + std::to_string(plan.limits.max_rows) + " tokens and " +
           std::to_string(plan.limits.max_sequences) + " sequences");
  line("KV cache", size_text(plan.kv_bytes),
       std::string(plan.kv.fp8 ? "fp8" : name_of(plan.kv.dtype)) + ", " +
           std::to_string(plan.kv.num_pages) + " pages of " + std::to_string(plan.kv.page_tokens) +
           " tokens = " + std::to_string(std::int64_t{plan.kv.num_pages} * plan.kv.page_tokens) +
           " tokens");
  line("total", size_text(plan.total_bytes()), "");
  line("longest context", std::to_string(plan.limits.max_context) + " tokens",
       "the model's own limit is " + std::to_string(plan.model_context));
  return table;
}

}  // namespace mobius
