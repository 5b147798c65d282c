#include "server/model_setup.h"

#include <array>
#include <chrono>
#include <cstdio>
#include <iostream>

#include "engine/validate.h"

namespace mobius {
namespace {

using Clock = std::chrono::steady_clock;

/// Blocks whose centroids are kept in the cache: prefill's, which are asked for most.
std::int64_t centroid_block(const ServerConfig::Attention& attention) {
  if (attention.prefill.mode == "moba") return attention.prefill.block;
  if (attention.decode.mode == "moba") return attention.decode.block;
  return 0;
}

}  // namespace

ModelOptions model_options(const ServerConfig& config) {
  ModelOptions options;
  options.folder = config.model.path;
  if (config.model.dtype == "f32") options.compute_dtype = DType::f32;
  if (config.model.dtype == "bf16") options.compute_dtype = DType::bf16;
  options.fp8_weights = config.model.quantization == "fp8";
  options.fp8_kv = config.kv.dtype == "fp8";
  options.page_tokens = static_cast<std::int32_t>(config.kv.page_tokens);
  options.kv_cache_bytes = static_cast<std::size_t>(config.kv.bytes);
  options.max_context = static_cast<std::int32_t>(config.model.max_context);
  options.step_tokens = static_cast<std::int32_t>(config.engine.step_tokens);
  options.max_sequences = static_cast<std::int32_t>(config.engine.max_running);
  if (config.engine.backend == "auto") options.device = DeviceChoice::any;
  if (config.engine.backend == "cuda") options.device = DeviceChoice::cuda;
  options.cuda_device = static_cast<std::int32_t>(config.engine.cuda_device);
  options.threads = static_cast<std::int32_t>(config.engine.threads);
  options.centroid_block = static_cast<std::int32_t>(centroid_block(config.attention));
  return options;
}

LoadEvents load_events() {
  LoadEvents events;
  events.on_fallback = [](const std::string& why) { std::cout << why << std::endl; };
  const Clock::time_point start = Clock::now();
  events.on_progress = [start, last = start](std::size_t done, std::size_t total) mutable {
    constexpr std::chrono::seconds kBetweenLines{2};
    const Clock::time_point now = Clock::now();
    if (now - last < kBetweenLines && !(done == total && last != start)) return;
    last = now;
    const double gigabytes = static_cast<double>(done) * 1e-9;
    const double seconds = std::chrono::duration<double>(now - start).count();
    std::array<char, 96> line{};
    std::snprintf(line.data(), line.size(), "weights %3.0f %%  %.1f GB  %.2f GB/s",
                  100.0 * static_cast<double>(done) / static_cast<double>(total), gigabytes,
                  gigabytes / seconds);
    std::cout << line.data() << std::endl;
  };
  return events;
}

void produce_token(Runner& runner) {
  const std::int32_t token = 0;
  const std::int32_t row = 0;
  const PageId page = 0;
  SequenceSlice slice;
  slice.num_rows = 1;
  slice.pages = {&page, 1};
  SamplingParams params;
  params.temperature = 0;
  SampleRow sample;
  sample.params = &params;
  sample.prompt = {&token, 1};
  runner.submit({{{&token, 1}, {&slice, 1}, {&row, 1}}, {&sample, 1}});
  runner.wait();
}

Status check_attention(const ServerConfig& config, const MemoryPlan& plan) {
  return validate(attention_settings(config), plan.kv.num_layers, plan.kv.page_tokens);
}

}  // namespace mobius
