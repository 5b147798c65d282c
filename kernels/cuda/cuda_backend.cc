#include <algorithm>
#include <bit>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/fp8_matmul.h"
#include "kernels/cuda/graph.h"
#include "kernels/cuda/kv_cache.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/sampling.h"
#include "kernels/cuda/step.h"

namespace mobius {
namespace {

/// Kept out of the plan: recorded graphs, modules, the library's own, and rounding of allocations.
constexpr std::size_t kReservedBytes = std::size_t{768} << 20;
/// Query heads of a KV head that share a warp's rows.
constexpr std::int64_t kMostSharing = kWarpRows;

void require(bool condition, const std::string& what) {
  if (!condition) throw std::invalid_argument(what);
}

std::string shape_of(const Tensor& tensor) {
  return std::string(name_of(tensor.dtype)) + "[" + std::to_string(tensor.rows) + ", " +
         std::to_string(tensor.cols) + "]";
}

bool f32_or_bf16(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16;
}

const HostTensor& block_of(const Weight& weight, const char* operation) {
  require(weight.row_blocks.size() == 1 && weight.row_blocks[0].rows == weight.rows,
          std::string(operation) + ": the weight is not this backend's");
  return weight.row_blocks[0];
}

const CudaKvPool& own(const KvPool& kv) {
  const auto* pool = dynamic_cast<const CudaKvPool*>(&kv);
  require(pool != nullptr, "the KV pool is another backend's");
  return *pool;
}

CudaKvPool& own(KvPool& kv) {
  auto* pool = dynamic_cast<CudaKvPool*>(&kv);
  require(pool != nullptr, "the KV pool is another backend's");
  return *pool;
}

/// Elements of a layer's largest weight.
std::int64_t largest_matrix(const ModelShape& model) {
  const std::int64_t qkv = std::int64_t{model.heads + 2 * model.kv_heads} * model.head_dim;
  return std::max(qkv, 2 * std::int64_t{model.intermediate}) * model.hidden;
}

Fp8Weight fp8_of(const Weight& weight) {
  return {weight.row_blocks.front().data, weight.row_scales, weight.rows, weight.cols};
}

std::uint64_t bits_of(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer);
}

/// The kernels of kernels/cuda/hopper where they take the shape; MOBIUS_CUDA_ATTENTION=plain asks
/// for the plain ones everywhere.
AttentionKernels chosen_attention_kernels() {
  const char* asked = std::getenv("MOBIUS_CUDA_ATTENTION");
  if (asked == nullptr || std::string_view(asked) == "hopper") return AttentionKernels::hopper;
  if (std::string_view(asked) == "plain") return AttentionKernels::plain;
  throw std::runtime_error("MOBIUS_CUDA_ATTENTION is \"" + std::string(asked) +
                           "\", must be plain or hopper");
}

enum class Operation : std::uint64_t {
  embed,
  rms_norm,
  matmul,
  rope_append,
  attention,
  silu_mul,
  gather_rows
};

/// An operation and two tensors as numbers, for OperationLog.
#define MOBIUS_SIGNATURE(operation, a, b)                                                          \
  static_cast<std::uint64_t>(operation), bits_of((a).data), static_cast<std::uint64_t>((a).dtype), \
      static_cast<std::uint64_t>((a).rows), static_cast<std::uint64_t>((a).cols),                  \
      bits_of((b).data), static_cast<std::uint64_t>((b).dtype),                                    \
      static_cast<std::uint64_t>((b).rows), static_cast<std::uint64_t>((b).cols)

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(int device) : device_(device), log_(stream_), matmul_(stream_) {}

  BackendInfo info() const override {
    cudaDeviceProp properties{};
    MOBIUS_CUDA(cudaGetDeviceProperties(&properties, device_));
    std::size_t free = 0;
    std::size_t total = 0;
    MOBIUS_CUDA(cudaMemGetInfo(&free, &total));
    BackendInfo info;
    info.name = "cuda (" + std::string(properties.name) + ")";
    info.memory_bytes = free > kReservedBytes ? free - kReservedBytes : 0;
    info.threads = 1;
    info.weights_in_place = false;
    info.tells_blocks = true;
    info.asynchronous = true;
    info.default_compute = DType::bf16;
    info.fp8_weights = true;
    return info;
  }

  Buffer allocate(std::size_t bytes, std::string_view purpose) override {
    return {allocate_device(bytes, purpose), bytes};
  }

  Weight load_weight(std::span<const HostTensor> row_blocks, DType dtype) override {
    if (row_blocks.empty()) throw std::runtime_error("a weight has no row blocks");
    if (dtype == DType::f16) throw std::runtime_error("CUDA computes in bf16 or f32, not f16");
    Weight weight;
    weight.cols = row_blocks.front().cols;
    for (const HostTensor& block : row_blocks) {
      if (block.cols != weight.cols || block.cols < 1 || block.rows < 1 || block.data == nullptr) {
        throw std::runtime_error("a weight's row block is [" + std::to_string(block.rows) + ", " +
                                 std::to_string(block.cols) + "] beside one of " +
                                 std::to_string(weight.cols) + " columns");
      }
      weight.rows += block.rows;
    }
    if (!uploader_) uploader_.emplace(stream_);
    if (dtype == DType::e4m3) {
      quantise(weight, row_blocks);
      return weight;
    }
    const HostTensor whole{nullptr, dtype, weight.rows, weight.cols};
    weight.storage = slabs_.allocate(whole.bytes(), "weights");
    auto* next = static_cast<std::byte*>(weight.storage.get());
    for (const HostTensor& block : row_blocks) {
      const std::int64_t count = block.rows * block.cols;
      uploader_->upload(next, dtype, block.data, block.dtype, count);
      next += static_cast<std::size_t>(count) * size_of(dtype);
    }
    weight.row_blocks.push_back({weight.storage.get(), dtype, weight.rows, weight.cols});
    if (dtype == DType::bf16 && weight.rows > 1) {
      matmul_.add_weight(weight.storage.get(), weight.rows, weight.cols);
    }
    return weight;
  }

  std::size_t kv_bytes(const KvShape& shape) const override { return cuda_kv_bytes(shape); }

  std::unique_ptr<KvPool> create_kv_pool(const KvShape& shape) override {
    return std::make_unique<CudaKvPool>(shape);
  }

  std::size_t workspace_bytes(const ModelShape& model, const KvShape& kv,
                              const StepLimits& limits) const override {
    check_model(model, kv);
    return attention_workspace_bytes(kv, model.heads, limits, attention_kernels_) +
           StepUploader::device_bytes(limits, kv) +
           CudaSampler::device_bytes(sampled_rows(limits), model.vocab) +
           CudaMatmul::kWorkspaceBytes +
           (model.fp8_weights ? CudaFp8Matmul::device_bytes(largest_matrix(model)) : 0);
  }

  void reserve_workspace(const ModelShape& model, const KvShape& kv,
                         const StepLimits& limits) override {
    check_model(model, kv);
    stream_.synchronize();
    uploader_.reset();
    matmul_.take_workspace();
    matmul_.choose(limits.max_rows);
    max_rows_ = limits.max_rows;
    fp8_.reset();
    if (model.fp8_weights) {
      fp8_.emplace(stream_, largest_matrix(model));
      for (const auto& [shape, weight] : fp8_weights_) {
        fp8_->prepare(DType::f32, weight, max_rows_);
      }
    }
    attention_memory_ = nullptr;
    attention_memory_ =
        allocate_device(attention_workspace_bytes(kv, model.heads, limits, attention_kernels_),
                        "the attention's workspace");
    attention_ = lay_out_attention_workspace(attention_memory_.get(), kv, model.heads, limits,
                                             attention_kernels_);
    step_.reset();
    step_.emplace(limits, kv, model.heads);
    sampler_.reset();
    sampler_.emplace(sampled_rows(limits), model.vocab);
    vocab_ = model.vocab;
    kv_ = kv;
  }

  void begin_step(const StepView& step) override {
    if (!step_) throw std::invalid_argument("begin_step: no workspace was reserved");
    for (const std::int32_t token : step.tokens) {
      require(token >= 0 && token < vocab_, "step: token " + std::to_string(token) +
                                                ", the vocabulary has " + std::to_string(vocab_));
    }
    MOBIUS_CUDA(cudaSetDevice(device_));
    step_->upload(step, stream_);
    const HostStep& host = step_->host();
    constexpr std::int32_t kMost = (1 << 15) - 1;
    if (host.single > 0 && host.single == host.rows && host.rows <= kMost) {
      // Launches follow from how many rows there are, at which layers some are full, whether some
      // tell what they choose, and from the greatest top_k under MoBA, of no effect beyond what
      // fits here.
      const bool told = step_->device().told != nullptr;
      log_.begin_replayable(static_cast<std::uint64_t>(host.rows) << 48 |
                            static_cast<std::uint64_t>(host.logit_rows) << 32 |
                            static_cast<std::uint64_t>(host.single_full_layers) << 16 |
                            std::uint64_t{told} << 15 |
                            static_cast<std::uint64_t>(std::min(host.single_top_k, kMost)));
    } else {
      log_.begin_immediate();
    }
  }

  void embed(Tensor out, const Weight& table) override {
    const HostTensor& block = block_of(table, "embed");
    require(out.dtype == DType::f32 && out.cols == table.cols && out.rows == host().rows &&
                f32_or_bf16(block.dtype) && table.rows >= vocab_,
            "embed: out is " + shape_of(out) + " for " + std::to_string(host().rows) +
                " tokens of " + std::to_string(table.cols) + " values");
    const std::int32_t* tokens = step_->device().tokens;
    log_.add({MOBIUS_SIGNATURE(Operation::embed, out, block)},
             [=, this] { launch_embed(out, block.data, block.dtype, tokens, stream_.get()); });
  }

  void rms_norm(Tensor out, Tensor in, const Weight& weight, float eps) override {
    const HostTensor& block = block_of(weight, "rms_norm");
    require(in.dtype == DType::f32 && f32_or_bf16(out.dtype) && out.rows == in.rows &&
                out.cols == in.cols && in.cols > 0 && weight.rows == 1 && weight.cols == in.cols,
            "rms_norm: out " + shape_of(out) + ", in " + shape_of(in) + ", weight [" +
                std::to_string(weight.rows) + ", " + std::to_string(weight.cols) + "]");
    log_.add({MOBIUS_SIGNATURE(Operation::rms_norm, out, in), bits_of(block.data),
              std::bit_cast<std::uint32_t>(eps)},
             [=, this] { launch_rms_norm(out, in, block.data, block.dtype, eps, stream_.get()); });
  }

  void matmul(Tensor out, Tensor in, const Weight& weight, bool accumulate) override {
    const HostTensor& block = block_of(weight, "matmul");
    const bool fp8 = block.dtype == DType::e4m3;
    require((fp8 || block.dtype == DType::bf16) && in.dtype == DType::bf16 &&
                f32_or_bf16(out.dtype) && out.rows == in.rows && in.cols == weight.cols &&
                out.cols == weight.rows && !(accumulate && out.dtype != DType::f32),
            "matmul: out " + shape_of(out) + ", in " + shape_of(in) + ", weight " +
                std::string(name_of(block.dtype)) + "[" + std::to_string(weight.rows) + ", " +
                std::to_string(weight.cols) + "]; CUDA multiplies bf16");
    require(!fp8 || (fp8_ && weight.row_scales != nullptr),
            "matmul: no workspace was reserved for fp8 weights");
    if (out.rows == 0) return;
    if (fp8) {
      const Fp8Weight quantised = fp8_of(weight);
      fp8_->prepare(out.dtype, quantised, max_rows_);
      log_.add({MOBIUS_SIGNATURE(Operation::matmul, out, in), bits_of(block.data),
                std::uint64_t{accumulate}},
               [=, this] { fp8_->run(out, in, quantised, accumulate); });
      return;
    }
    matmul_.prepare(out, in, block.data);
    log_.add({MOBIUS_SIGNATURE(Operation::matmul, out, in), bits_of(block.data),
              std::uint64_t{accumulate}},
             [=, this] { matmul_.run(out, in, block.data, accumulate); });
  }

  void rope_append(Tensor q_out, Tensor qkv, KvPool& kv, std::int32_t layer,
                   const Weight& inverse_frequencies) override {
    CudaKvPool& pool = own(kv);
    const KvShape& shape = pool.shape();
    const HostTensor& frequencies = block_of(inverse_frequencies, "rope_append");
    const std::int64_t kv_columns = std::int64_t{shape.kv_heads} * shape.head_dim;
    require(frequencies.dtype == DType::f32 && frequencies.rows == 1 &&
                frequencies.cols == shape.head_dim / 2,
            "rope_append: inverse_frequencies must be one row of head_dim / 2 f32");
    check_heads("rope_append", q_out, pool, layer);
    require(qkv.dtype == DType::f32 && qkv.rows == q_out.rows &&
                qkv.cols == q_out.cols + 2 * kv_columns,
            "rope_append: q " + shape_of(q_out) + ", qkv " + shape_of(qkv));
    const auto* values = static_cast<const float*>(frequencies.data);
    log_.add({MOBIUS_SIGNATURE(Operation::rope_append, q_out, qkv), bits_of(&pool),
              static_cast<std::uint64_t>(layer), bits_of(values)},
             [=, this, &pool] {
               launch_rope_append(q_out, qkv, pool, layer, values, host(), step_->device(),
                                  stream_.get());
             });
  }

  void attention(Tensor out, Tensor q, const KvPool& kv, std::int32_t layer) override {
    const CudaKvPool& pool = own(kv);
    check_heads("attention", q, pool, layer);
    require(out.dtype == q.dtype && out.rows == q.rows && out.cols == q.cols,
            "attention: out " + shape_of(out) + ", q " + shape_of(q));
    const bool replayable = log_.replayable();
    log_.add({MOBIUS_SIGNATURE(Operation::attention, out, q), bits_of(&pool),
              static_cast<std::uint64_t>(layer), bits_of(step_->device().told)},
             [=, this, &pool] {
               launch_attention(out, q, pool, layer, host(), step_->device(), attention_,
                                replayable, stream_.get());
             });
  }

  void silu_mul(Tensor out, Tensor gate_up) override {
    require(gate_up.dtype == DType::f32 && f32_or_bf16(out.dtype) && out.rows == gate_up.rows &&
                gate_up.cols == 2 * out.cols,
            "silu_mul: out " + shape_of(out) + ", gate_up " + shape_of(gate_up));
    log_.add({MOBIUS_SIGNATURE(Operation::silu_mul, out, gate_up)},
             [=, this] { launch_silu_mul(out, gate_up, stream_.get()); });
  }

  void gather_rows(Tensor out, Tensor in) override {
    require(out.dtype == in.dtype && out.cols == in.cols && out.rows == host().logit_rows &&
                in.rows == host().rows,
            "gather_rows: out " + shape_of(out) + ", in " + shape_of(in) + ", " +
                std::to_string(host().logit_rows) + " rows");
    const std::int32_t* rows = step_->device().logit_rows;
    log_.add({MOBIUS_SIGNATURE(Operation::gather_rows, out, in)},
             [=, this] { launch_gather_rows(out, in, rows, stream_.get()); });
  }

  void sample(std::span<SampledToken> out, Tensor logits,
              std::span<const SampleRow> rows) override {
    if (!sampler_) throw std::invalid_argument("sample: no workspace was reserved");
    require(logits.dtype == DType::f32 && logits.cols >= 1 && out.size() == rows.size() &&
                logits.rows == static_cast<std::int64_t>(rows.size()),
            "sample: logits " + shape_of(logits) + " for " + std::to_string(rows.size()) +
                " rows and " + std::to_string(out.size()) + " results");
    sampler_->check(rows, logits.cols);
    log_.flush();
    if (rows.empty()) return;
    sampler_->sample(logits, rows, stream_);
    sampled_ = out;
    sample_rows_ = rows;
  }

  void wait() override {
    log_.flush();
    stream_.synchronize();
    if (step_) step_->tell_blocks();
    if (sample_rows_.empty()) return;
    sampler_->collect(sampled_, sample_rows_);
    sampled_ = {};
    sample_rows_ = {};
  }

  void download(void* host_memory, Tensor tensor) override {
    log_.flush();
    MOBIUS_CUDA(cudaMemcpyAsync(host_memory, tensor.data, tensor.bytes(), cudaMemcpyDeviceToHost,
                                stream_.get()));
    stream_.synchronize();
  }

 private:
  /// Codes of all rows, then their scales.
  void quantise(Weight& weight, std::span<const HostTensor> row_blocks) {
    if (weight.cols % 16 != 0) {
      throw std::runtime_error("a weight has " + std::to_string(weight.cols) +
                               " columns, must be a multiple of 16 for fp8");
    }
    const auto codes_bytes = static_cast<std::size_t>(weight.rows * weight.cols);
    weight.storage =
        slabs_.allocate(weight_bytes(DType::e4m3, weight.rows, weight.cols), "weights");
    auto* codes = static_cast<std::byte*>(weight.storage.get());
    // Codes come in sixteens.
    auto* scales = reinterpret_cast<float*>(codes + codes_bytes);
    weight.row_scales = scales;
    weight.row_blocks.push_back({codes, DType::e4m3, weight.rows, weight.cols});
    for (const HostTensor& block : row_blocks) {
      uploader_->quantise(codes, scales, block.data, block.dtype, block.rows, block.cols);
      codes += block.rows * block.cols;
      scales += block.rows;
    }
    fp8_weights_.try_emplace({weight.rows, weight.cols}, fp8_of(weight));
  }

  static std::int32_t sampled_rows(const StepLimits& limits) {
    return std::min(limits.max_sequences, limits.max_rows);
  }

  static void check_model(const ModelShape& model, const KvShape& kv) {
    if (model.activation != DType::bf16) {
      throw std::runtime_error("model.dtype is " + std::string(name_of(model.activation)) +
                               ", must be bf16 with CUDA");
    }
    const std::int64_t query = std::int64_t{model.heads} * model.head_dim;
    if (model.fp8_weights &&
        (model.hidden % 16 != 0 || query % 16 != 0 || model.intermediate % 16 != 0)) {
      throw std::runtime_error(
          "model.quantization is fp8, which needs sizes that are multiples of 16; the model has " +
          std::to_string(model.hidden) + " hidden, " + std::to_string(query) +
          " of its heads and " + std::to_string(model.intermediate) + " in its MLP");
    }
    cuda_kv_bytes(kv);
    if (model.heads % model.kv_heads != 0 || model.heads / model.kv_heads > kMostSharing) {
      throw std::runtime_error("the model has " + std::to_string(model.heads) + " heads on " +
                               std::to_string(model.kv_heads) + " KV heads; CUDA takes up to " +
                               std::to_string(kMostSharing) + " on each");
    }
    if (model.vocab > CudaSampler::kMaxVocab) {
      throw std::runtime_error("the vocabulary has " + std::to_string(model.vocab) +
                               " tokens, must be at most " +
                               std::to_string(CudaSampler::kMaxVocab) + " with CUDA");
    }
  }

  void check_heads(const char* operation, const Tensor& q, const CudaKvPool& pool,
                   std::int32_t layer) const {
    const KvShape& shape = pool.shape();
    const std::int64_t kv_columns = std::int64_t{shape.kv_heads} * shape.head_dim;
    require(shape.page_tokens == kv_.page_tokens && shape.fp8 == kv_.fp8 &&
                shape.num_pages >= kv_.num_pages,
            std::string(operation) + ": the KV pool is not the one that was planned");
    require(layer >= 0 && layer < shape.num_layers, std::string(operation) + ": layer " +
                                                        std::to_string(layer) + " of " +
                                                        std::to_string(shape.num_layers));
    require(q.dtype == DType::bf16 && q.cols > 0 && q.cols % kv_columns == 0 &&
                q.cols / kv_columns <= kMostSharing && q.rows == host().rows && host().slices > 0,
            std::string(operation) + ": q " + shape_of(q) + " for a step of " +
                std::to_string(host().rows) + " rows");
  }

  const HostStep& host() const {
    if (!step_) throw std::invalid_argument("no workspace was reserved");
    return step_->host();
  }

  int device_ = 0;
  AttentionKernels attention_kernels_ = chosen_attention_kernels();
  CudaStream stream_;
  OperationLog log_;
  CudaMatmul matmul_;
  std::optional<CudaFp8Matmul> fp8_;
  /// One of each shape [rows, cols], to choose by.
  std::map<std::pair<std::int64_t, std::int64_t>, Fp8Weight> fp8_weights_;
  std::int32_t max_rows_ = 0;
  SlabAllocator slabs_;
  std::optional<Uploader> uploader_;  ///< while weights are loaded
  std::shared_ptr<void> attention_memory_;
  AttentionWorkspace attention_;
  std::optional<StepUploader> step_;
  std::optional<CudaSampler> sampler_;
  std::int32_t vocab_ = 0;
  KvShape kv_;  ///< what steps are checked against
  std::span<SampledToken> sampled_;
  std::span<const SampleRow> sample_rows_;
};

#undef MOBIUS_SIGNATURE

}  // namespace

bool has_cuda_backend() {
  return true;
}

std::unique_ptr<Backend> make_cuda_backend(std::int32_t device) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    cudaGetLastError();
    // Also what a machine without any driver reports.
    const bool no_driver = status == cudaErrorInsufficientDriver;
    throw std::runtime_error(std::string("no CUDA device: ") +
                             (status == cudaSuccess ? "none found"
                              : no_driver           ? "no driver, or one too old for CUDA 13"
                                                    : cudaGetErrorString(status)));
  }
  if (device < 0 || device >= count) {
    throw std::runtime_error("CUDA device " + std::to_string(device) +
                             " does not exist, there are " + std::to_string(count));
  }
  cudaDeviceProp properties{};
  MOBIUS_CUDA(cudaGetDeviceProperties(&properties, device));
  if (properties.major != 9 || properties.minor != 0) {
    throw std::runtime_error("CUDA device " + std::to_string(device) + " (" + properties.name +
                             ") has compute capability " + std::to_string(properties.major) + "." +
                             std::to_string(properties.minor) +
                             ", Mobius is built for Hopper (9.0)");
  }
  MOBIUS_CUDA(cudaSetDevice(device));
  return std::make_unique<CudaBackend>(device);
}

}  // namespace mobius
