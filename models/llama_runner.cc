#include "models/llama_runner.h"

#include <stdexcept>
#include <string>
#include <utility>

namespace mobius {
namespace {

/// A checkpoint whose headers, shapes and memory are checked, and nothing loaded yet.
struct Prepared {
  LlamaConfig config;
  Checkpoint checkpoint;
  std::unique_ptr<Backend> backend;
  MemoryPlan plan;
};

std::unique_ptr<Backend> make_backend(const ModelOptions& options, const LoadEvents& events) {
  const bool any = options.device == DeviceChoice::any;
  if (options.device == DeviceChoice::cpu || (any && !has_cuda_backend())) {
    return make_cpu_backend(options.threads);
  }
  try {
    return make_cuda_backend(options.cuda_device);
  } catch (const std::runtime_error& error) {
    if (!any) throw;
    if (events.on_fallback) {
      events.on_fallback(std::string(error.what()) + "; computing on the CPU");
    }
    return make_cpu_backend(options.threads);
  }
}

Prepared prepare(ModelOptions options, const LoadEvents& events) {
  LlamaConfig config = load_llama_config(options.folder);
  Checkpoint checkpoint(options.folder);
  // The embedding says how the checkpoint is really stored; config.json is a claim.
  const DType stored =
      checkpoint.matrix("model.embed_tokens.weight", config.vocab_size, config.hidden_size).dtype;
  std::unique_ptr<Backend> backend = make_backend(options, events);
  if (!options.compute_dtype) options.compute_dtype = backend->info().default_compute;
  WeightMemory weights =
      check_weights(config, checkpoint, compute_dtype(options, stored), options.fp8_weights);
  if (!backend->info().weights_in_place) {
    weights.copied_bytes += std::exchange(weights.mapped_bytes, std::size_t{0});
  }
  MemoryPlan plan = plan_memory(options, config, stored, weights, *backend);
  return {std::move(config), std::move(checkpoint), std::move(backend), std::move(plan)};
}

}  // namespace

LlamaRunner::LlamaRunner(const LlamaConfig& config, Checkpoint checkpoint, const MemoryPlan& plan,
                         std::unique_ptr<Backend> backend, const LoadProgress& progress)
    : config_(config),
      plan_(plan),
      checkpoint_(std::move(checkpoint)),
      backend_(std::move(backend)) {
  const bool converted = plan_.weights.copied_bytes > plan_.weights.mapped_bytes;
  if (!converted) checkpoint_.prefault();
  llama_ = std::make_unique<Llama>(config_, checkpoint_, plan_, *backend_, progress);
  checkpoint_.check_intact();
  if (converted) checkpoint_.release();  // the copies count, the file's pages would count again
  backend_->reserve_workspace(plan_.model, plan_.kv, plan_.limits);
  kv_ = backend_->create_kv_pool(plan_.kv);
  info_ = {.device = backend_->info().name,
           .num_layers = config_.num_layers,
           .num_heads = config_.num_heads,
           .num_kv_heads = config_.num_kv_heads,
           .vocab_size = config_.vocab_size,
           .page_tokens = plan_.kv.page_tokens,
           .num_pages = plan_.kv.num_pages,
           .tells_blocks = backend_->info().tells_blocks,
           .asynchronous = backend_->info().asynchronous,
           .limits = plan_.limits};
  const auto max_samples = static_cast<std::size_t>(llama_->max_logit_rows());
  sampled_.reserve(max_samples);
}

LlamaRunner::~LlamaRunner() = default;

void LlamaRunner::check(const StepView& step) const {
  const auto fail = [](const std::string& message) {
    throw std::invalid_argument("step: " + message);
  };
  const std::size_t num_rows = step.tokens.size();
  if (step.slices.size() > static_cast<std::size_t>(plan_.limits.max_sequences)) {
    fail(std::to_string(step.slices.size()) + " sequences, planned for " +
         std::to_string(plan_.limits.max_sequences));
  }
  for (const std::int32_t row : step.logit_rows) {
    if (row < 0 || static_cast<std::size_t>(row) >= num_rows) {
      fail("row " + std::to_string(row) + " is sampled, but there are " + std::to_string(num_rows) +
           " rows");
    }
  }
  for (const std::int32_t token : step.tokens) {
    if (token < 0 || token >= config_.vocab_size) {
      fail("token " + std::to_string(token) + " is outside the vocabulary of " +
           std::to_string(config_.vocab_size));
    }
  }
}

void LlamaRunner::submit(const StepBatch& batch) {
  check(batch.view);
  if (batch.view.logit_rows.size() != batch.samples.size()) {
    throw std::invalid_argument("step: " + std::to_string(batch.samples.size()) + " samples for " +
                                std::to_string(batch.view.logit_rows.size()) + " logit rows");
  }
  const Tensor logits = llama_->forward(batch.view, *kv_);
  sampled_.resize(batch.samples.size());
  if (!batch.samples.empty()) backend_->sample(sampled_, logits, batch.samples);
}

std::span<const SampledToken> LlamaRunner::wait() {
  backend_->wait();
  checkpoint_.check_intact();
  return sampled_;
}

void LlamaRunner::forward(const StepView& step, std::span<float> logits) {
  check(step);
  if (logits.size() != step.logit_rows.size() * static_cast<std::size_t>(config_.vocab_size)) {
    throw std::invalid_argument("forward: logits has room for " + std::to_string(logits.size()) +
                                " values");
  }
  const Tensor result = llama_->forward(step, *kv_);
  if (!step.logit_rows.empty()) backend_->download(logits.data(), result);
  backend_->wait();
}

std::unique_ptr<LlamaRunner> load_llama(const ModelOptions& options, const LoadEvents& events) {
  Prepared prepared = prepare(options, events);
  return std::make_unique<LlamaRunner>(prepared.config, std::move(prepared.checkpoint),
                                       prepared.plan, std::move(prepared.backend),
                                       events.on_progress);
}

MemoryPlan plan_llama(const ModelOptions& options, const LoadEvents& events) {
  return prepare(options, events).plan;
}

}  // namespace mobius
