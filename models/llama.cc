#include "models/llama.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

namespace mobius {
namespace {

std::int64_t qkv_columns(const ModelShape& shape) {
  return std::int64_t{shape.heads + 2 * shape.kv_heads} * shape.head_dim;
}

/// All tensors of a checkpoint by their Hugging Face names, with the shapes that they must have.
struct LlamaTensors {
  const LlamaConfig& config;
  const Checkpoint& checkpoint;

  std::int64_t hidden() const { return config.hidden_size; }
  std::int64_t q_rows() const { return std::int64_t{config.num_heads} * config.head_dim; }
  std::int64_t kv_rows() const { return std::int64_t{config.num_kv_heads} * config.head_dim; }

  HostTensor layer_matrix(std::int32_t layer, const char* name, std::int64_t rows,
                          std::int64_t cols) const {
    return checkpoint.matrix(layer_name(layer, name), rows, cols);
  }
  HostTensor layer_vector(std::int32_t layer, const char* name) const {
    return checkpoint.vector(layer_name(layer, name), hidden());
  }

  HostTensor embedding() const {
    return checkpoint.matrix("model.embed_tokens.weight", config.vocab_size, hidden());
  }
  HostTensor final_norm() const { return checkpoint.vector("model.norm.weight", hidden()); }
  HostTensor lm_head() const {
    return checkpoint.matrix("lm_head.weight", config.vocab_size, hidden());
  }
  HostTensor attention_norm(std::int32_t layer) const {
    return layer_vector(layer, "input_layernorm");
  }
  HostTensor mlp_norm(std::int32_t layer) const {
    return layer_vector(layer, "post_attention_layernorm");
  }
  std::array<HostTensor, 3> qkv(std::int32_t layer) const {
    return {layer_matrix(layer, "self_attn.q_proj", q_rows(), hidden()),
            layer_matrix(layer, "self_attn.k_proj", kv_rows(), hidden()),
            layer_matrix(layer, "self_attn.v_proj", kv_rows(), hidden())};
  }
  HostTensor output(std::int32_t layer) const {
    return layer_matrix(layer, "self_attn.o_proj", hidden(), q_rows());
  }
  std::array<HostTensor, 2> gate_up(std::int32_t layer) const {
    return {layer_matrix(layer, "mlp.gate_proj", config.intermediate_size, hidden()),
            layer_matrix(layer, "mlp.up_proj", config.intermediate_size, hidden())};
  }
  HostTensor down(std::int32_t layer) const {
    return layer_matrix(layer, "mlp.down_proj", hidden(), config.intermediate_size);
  }

 private:
  static std::string layer_name(std::int32_t layer, const char* name) {
    return "model.layers." + std::to_string(layer) + "." + name + ".weight";
  }
};

/// Norm weights are tiny and used in f32: converting them costs nothing and spares a conversion in
/// every step.
constexpr DType kNormType = DType::f32;

/// Type of the weights that enter products.
DType matrix_type(DType compute, bool fp8_weights) {
  return fp8_weights ? DType::e4m3 : compute;
}

}  // namespace

ModelShape model_shape(const LlamaConfig& config, DType compute, bool fp8_weights) {
  return {.hidden = config.hidden_size,
          .heads = config.num_heads,
          .kv_heads = config.num_kv_heads,
          .head_dim = config.head_dim,
          .intermediate = config.intermediate_size,
          .vocab = config.vocab_size,
          .activation = compute,
          .fp8_weights = fp8_weights};
}

WeightMemory check_weights(const LlamaConfig& config, const Checkpoint& checkpoint, DType compute,
                           bool fp8_weights) {
  const DType matrices = matrix_type(compute, fp8_weights);
  const LlamaTensors tensors{config, checkpoint};
  WeightMemory memory;
  const auto add = [&](std::span<const HostTensor> blocks, DType dtype) {
    for (const HostTensor& block : blocks) {
      if (block.dtype == dtype) {
        memory.mapped_bytes += block.bytes();
      } else {
        memory.copied_bytes += weight_bytes(dtype, block.rows, block.cols);
      }
    }
  };
  const auto add_one = [&](const HostTensor& tensor, DType dtype) {
    add(std::span(&tensor, 1), dtype);
  };
  add_one(tensors.embedding(), compute);
  for (std::int32_t layer = 0; layer < config.num_layers; ++layer) {
    add_one(tensors.attention_norm(layer), kNormType);
    add(tensors.qkv(layer), matrices);
    add_one(tensors.output(layer), matrices);
    add_one(tensors.mlp_norm(layer), kNormType);
    add(tensors.gate_up(layer), matrices);
    add_one(tensors.down(layer), matrices);
  }
  add_one(tensors.final_norm(), kNormType);
  if (!config.tie_word_embeddings) add_one(tensors.lm_head(), matrices);
  return memory;
}

std::size_t activation_bytes(const ModelShape& model, const StepLimits& limits) {
  const auto rows = static_cast<std::size_t>(limits.max_rows);
  const auto sampled = static_cast<std::size_t>(std::min(limits.max_sequences, limits.max_rows));
  const auto hidden = static_cast<std::size_t>(model.hidden);
  const auto ffn = static_cast<std::size_t>(model.intermediate);
  const auto query = static_cast<std::size_t>(model.heads) * model.head_dim;
  const auto qkv = static_cast<std::size_t>(qkv_columns(model));
  const std::size_t element = size_of(model.activation);
  return rows * (hidden * 4 + std::max(hidden, ffn) * element + std::max(qkv, 2 * ffn) * 4 +
                 2 * query * element) +
         sampled * (hidden * 4 + hidden * element + static_cast<std::size_t>(model.vocab) * 4);
}

Llama::Llama(const LlamaConfig& config, const Checkpoint& checkpoint, const MemoryPlan& plan,
             Backend& backend, const LoadProgress& progress)
    : config_(config),
      shape_(plan.model),
      backend_(backend),
      max_rows_(plan.limits.max_rows),
      max_logit_rows_(std::min(plan.limits.max_sequences, plan.limits.max_rows)),
      frequencies_(rope_inverse_frequencies(config)) {
  const HostTensor frequencies{frequencies_.data(), DType::f32, 1,
                               static_cast<std::int64_t>(frequencies_.size())};
  inverse_frequencies_ = backend.load_weight(std::span(&frequencies, 1), DType::f32);
  const DType compute = shape_.activation;
  const DType matrices = matrix_type(compute, shape_.fp8_weights);
  const LlamaTensors tensors{config, checkpoint};
  std::size_t done = 0;
  const auto load = [&](std::span<const HostTensor> blocks, DType dtype) {
    Weight weight = backend.load_weight(blocks, dtype);
    done += weight_bytes(dtype, weight.rows, weight.cols);
    if (progress) progress(done, plan.weights.mapped_bytes + plan.weights.copied_bytes);
    return weight;
  };
  const auto load_matrix = [&](const HostTensor& tensor, DType dtype) {
    return load(std::span(&tensor, 1), dtype);
  };
  embedding_ = load_matrix(tensors.embedding(), compute);
  layers_.reserve(static_cast<std::size_t>(config.num_layers));
  for (std::int32_t layer = 0; layer < config.num_layers; ++layer) {
    layers_.push_back({
        .attention_norm = load_matrix(tensors.attention_norm(layer), kNormType),
        .qkv = load(tensors.qkv(layer), matrices),
        .output = load_matrix(tensors.output(layer), matrices),
        .mlp_norm = load_matrix(tensors.mlp_norm(layer), kNormType),
        .gate_up = load(tensors.gate_up(layer), matrices),
        .down = load_matrix(tensors.down(layer), matrices),
    });
  }
  final_norm_ = load_matrix(tensors.final_norm(), kNormType);
  lm_head_ = config.tie_word_embeddings ? embedding_ : load_matrix(tensors.lm_head(), matrices);

  const auto rows = static_cast<std::size_t>(max_rows_);
  const auto sampled = static_cast<std::size_t>(max_logit_rows_);
  const auto hidden = static_cast<std::size_t>(shape_.hidden);
  const auto ffn = static_cast<std::size_t>(shape_.intermediate);
  const auto query = static_cast<std::size_t>(shape_.heads) * shape_.head_dim;
  const auto qkv = static_cast<std::size_t>(qkv_columns(shape_));
  const std::size_t element = size_of(compute);
  residual_ = backend.allocate(rows * hidden * 4, "residual stream");
  normed_ = backend.allocate(rows * std::max(hidden, ffn) * element, "matrix inputs");
  projected_ = backend.allocate(rows * std::max(qkv, 2 * ffn) * 4, "matrix outputs");
  query_ = backend.allocate(rows * query * element, "queries");
  attended_ = backend.allocate(rows * query * element, "attention output");
  sampled_ = backend.allocate(sampled * hidden * 4, "sampled rows");
  sampled_normed_ = backend.allocate(sampled * hidden * element, "sampled rows");
  logits_ = backend.allocate(sampled * static_cast<std::size_t>(shape_.vocab) * 4, "logits");
}

Tensor Llama::forward(const StepView& step, KvPool& kv) {
  const auto count = static_cast<std::int64_t>(step.tokens.size());
  const auto num_logits = static_cast<std::int64_t>(step.logit_rows.size());
  if (count == 0 || count > max_rows_ || num_logits > max_logit_rows_) {
    throw std::invalid_argument("forward: " + std::to_string(count) + " rows and " +
                                std::to_string(num_logits) + " logit rows, at most " +
                                std::to_string(max_rows_) + " and " +
                                std::to_string(max_logit_rows_) + " were planned");
  }
  const DType compute = shape_.activation;
  const std::int64_t query_columns = std::int64_t{shape_.heads} * shape_.head_dim;
  const Tensor residual = residual_.view(DType::f32, count, shape_.hidden);
  const Tensor normed = normed_.view(compute, count, shape_.hidden);
  const Tensor qkv = projected_.view(DType::f32, count, qkv_columns(shape_));
  const Tensor query = query_.view(compute, count, query_columns);
  const Tensor attended = attended_.view(compute, count, query_columns);
  const Tensor gate_up = projected_.view(DType::f32, count, 2 * std::int64_t{shape_.intermediate});
  const Tensor gated = normed_.view(compute, count, shape_.intermediate);
  const float eps = config_.rms_norm_eps;

  backend_.begin_step(step);
  backend_.embed(residual, embedding_);
  for (std::int32_t index = 0; index < config_.num_layers; ++index) {
    const Layer& layer = layers_[static_cast<std::size_t>(index)];
    backend_.rms_norm(normed, residual, layer.attention_norm, eps);
    backend_.matmul(qkv, normed, layer.qkv, false);
    backend_.rope_append(query, qkv, kv, index, inverse_frequencies_);
    backend_.attention(attended, query, kv, index);
    backend_.matmul(residual, attended, layer.output, true);

    backend_.rms_norm(normed, residual, layer.mlp_norm, eps);
    backend_.matmul(gate_up, normed, layer.gate_up, false);
    backend_.silu_mul(gated, gate_up);
    backend_.matmul(residual, gated, layer.down, true);
  }
  if (num_logits == 0) return {};

  // The vocabulary is wide: only rows that are asked for go through the head.
  const Tensor sampled = sampled_.view(DType::f32, num_logits, shape_.hidden);
  const Tensor sampled_normed = sampled_normed_.view(compute, num_logits, shape_.hidden);
  const Tensor logits = logits_.view(DType::f32, num_logits, shape_.vocab);
  backend_.gather_rows(sampled, residual);
  backend_.rms_norm(sampled_normed, sampled, final_norm_, eps);
  backend_.matmul(logits, sampled_normed, lm_head_, false);
  return logits;
}

}  // namespace mobius
