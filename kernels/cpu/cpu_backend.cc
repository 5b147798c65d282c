#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/alignment.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/host.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kv_cache.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/sampling.h"
#include "kernels/cpu/thread_pool.h"

namespace mobius {
namespace {

constexpr std::int32_t kMostThreads = 1024;

std::string readable(std::size_t bytes) {
  const std::size_t mebibytes = (bytes + (std::size_t{1} << 20) - 1) >> 20;
  return std::to_string(mebibytes) + " MiB";
}

/// Whether kernels may read the block where it lies: they need the alignment of one element.
bool usable_in_place(const HostTensor& block, DType dtype) {
  return block.dtype == dtype && reinterpret_cast<std::uintptr_t>(block.data) % size_of(dtype) == 0;
}

const CpuKvPool& own(const KvPool& kv) {
  const auto* pool = dynamic_cast<const CpuKvPool*>(&kv);
  if (pool == nullptr) throw std::invalid_argument("the KV pool is another backend's");
  return *pool;
}

CpuKvPool& own(KvPool& kv) {
  auto* pool = dynamic_cast<CpuKvPool*>(&kv);
  if (pool == nullptr) throw std::invalid_argument("the KV pool is another backend's");
  return *pool;
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(std::int32_t threads)
      : isa_(detect_isa()), pool_(threads), matmul_(isa_, pool_) {
    for (int thread = 0; thread < pool_.size(); ++thread) samplers_.emplace_back(isa_);
  }

  BackendInfo info() const override {
    BackendInfo info;
    info.threads = pool_.size();
    info.name = "cpu (" + std::string(name_of(isa_)) + ", " + std::to_string(pool_.size()) +
                (pool_.size() == 1 ? " thread)" : " threads)");
    info.memory_bytes = available_memory();
    info.tells_blocks = true;
    return info;
  }

  Buffer allocate(std::size_t bytes, std::string_view purpose) override {
    Buffer buffer;
    buffer.bytes = bytes;
    // Memory is only handed over when it is first touched, so a size that can never be there must
    // be refused here rather than kill the process later.
    const std::size_t available = available_memory();
    void* memory = bytes > available
                       ? nullptr
                       : std::aligned_alloc(kAlignment, std::max(align_up(bytes), kAlignment));
    if (memory == nullptr) {
      throw std::runtime_error("no memory for " + std::string(purpose) + ": " + readable(bytes) +
                               " needed, " + readable(available) + " available");
    }
    buffer.data = std::shared_ptr<void>(memory, [](void* p) { std::free(p); });
    return buffer;
  }

  Weight load_weight(std::span<const HostTensor> row_blocks, DType dtype) override {
    if (row_blocks.empty()) throw std::runtime_error("a weight has no row blocks");
    if (dtype != DType::bf16 && dtype != DType::f32) {
      throw std::runtime_error("the CPU computes in bf16 or f32, not " +
                               std::string(name_of(dtype)));
    }
    Weight weight;
    weight.cols = row_blocks.front().cols;
    std::size_t copied = 0;
    for (const HostTensor& block : row_blocks) {
      if (block.cols != weight.cols || block.cols < 1 || block.rows < 1 || block.data == nullptr) {
        throw std::runtime_error("a weight's row block is [" + std::to_string(block.rows) + ", " +
                                 std::to_string(block.cols) + "] beside one of " +
                                 std::to_string(weight.cols) + " columns");
      }
      weight.rows += block.rows;
      if (!usable_in_place(block, dtype)) {
        copied += align_up(HostTensor{nullptr, dtype, block.rows, block.cols}.bytes());
      }
    }
    if (copied > 0) weight.storage = allocate(copied, "converted weights").data;
    auto* next = static_cast<std::byte*>(weight.storage.get());
    for (const HostTensor& block : row_blocks) {
      if (usable_in_place(block, dtype)) {
        weight.row_blocks.push_back(block);
        continue;
      }
      convert(next, dtype, block.data, block.dtype, block.rows * block.cols, pool_, isa_);
      weight.row_blocks.push_back({next, dtype, block.rows, block.cols});
      next += align_up(weight.row_blocks.back().bytes());
    }
    return weight;
  }

  std::size_t kv_bytes(const KvShape& shape) const override { return mobius::kv_bytes(shape); }

  std::unique_ptr<KvPool> create_kv_pool(const KvShape& shape) override {
    return std::make_unique<CpuKvPool>(shape);
  }

  std::size_t workspace_bytes(const ModelShape& model, const KvShape& kv,
                              const StepLimits& limits) const override {
    return attention_workspace_bytes(kv, model.heads, limits, pool_.size()) +
           matmul_.scratch_bytes(longest_sum(model)) +
           samplers_.size() * RowSampler::scratch_bytes(model.vocab);
  }

  void reserve_workspace(const ModelShape& model, const KvShape& kv,
                         const StepLimits& limits) override {
    attention_scratch_ = {};
    attention_scratch_ = allocate(attention_workspace_bytes(kv, model.heads, limits, pool_.size()),
                                  "the attention's workspace");
    try {
      matmul_.reserve(longest_sum(model));
      for (RowSampler& sampler : samplers_) sampler.reserve(model.vocab);
    } catch (const std::bad_alloc&) {
      throw std::runtime_error("no memory for the step's workspace: " +
                               readable(workspace_bytes(model, kv, limits)) + " needed");
    }
  }

  void begin_step(const StepView& step) override { step_ = step; }

  void embed(Tensor out, const Weight& table) override {
    mobius::embed(out, table, step_.tokens, pool_, isa_);
  }

  void rms_norm(Tensor out, Tensor in, const Weight& weight, float eps) override {
    mobius::rms_norm(out, in, weight, eps, pool_, isa_);
  }

  void matmul(Tensor out, Tensor in, const Weight& weight, bool accumulate) override {
    matmul_(out, in, weight, accumulate);
  }

  void rope_append(Tensor q_out, Tensor qkv, KvPool& kv, std::int32_t layer,
                   const Weight& inverse_frequencies) override {
    if (inverse_frequencies.row_blocks.size() != 1 || inverse_frequencies.rows != 1 ||
        inverse_frequencies.row_blocks[0].dtype != DType::f32) {
      throw std::invalid_argument("rope_append: inverse_frequencies must be one row of f32");
    }
    const auto* values = static_cast<const float*>(inverse_frequencies.row_blocks[0].data);
    mobius::rope_append(q_out, qkv, own(kv), layer,
                        {values, static_cast<std::size_t>(inverse_frequencies.cols)}, step_, pool_);
  }

  void attention(Tensor out, Tensor q, const KvPool& kv, std::int32_t layer) override {
    const std::span<std::byte> workspace{static_cast<std::byte*>(attention_scratch_.data.get()),
                                         attention_scratch_.bytes};
    mobius::attention(out, q, own(kv), layer, step_, workspace, pool_, isa_);
  }

  void silu_mul(Tensor out, Tensor gate_up) override {
    mobius::silu_mul(out, gate_up, pool_, isa_);
  }

  void gather_rows(Tensor out, Tensor in) override {
    mobius::gather_rows(out, in, step_.logit_rows, pool_);
  }

  void sample(std::span<SampledToken> out, Tensor logits,
              std::span<const SampleRow> rows) override {
    if (logits.dtype != DType::f32 || logits.cols < 1 || out.size() != rows.size() ||
        logits.rows != static_cast<std::int64_t>(rows.size())) {
      throw std::invalid_argument("sample: logits " + std::string(name_of(logits.dtype)) + "[" +
                                  std::to_string(logits.rows) + ", " + std::to_string(logits.cols) +
                                  "] for " + std::to_string(rows.size()) + " rows and " +
                                  std::to_string(out.size()) + " results");
    }
    for (const SampleRow& row : rows) RowSampler::check(row, logits.cols);
    pool_.parallel_for(logits.rows, [&](std::int64_t i, int thread) {
      auto* values = static_cast<float*>(logits.data) + i * logits.cols;
      const auto index = static_cast<std::size_t>(i);
      out[index] = samplers_[static_cast<std::size_t>(thread)].sample(
          {values, static_cast<std::size_t>(logits.cols)}, rows[index]);
    });
  }

  // Every call here is done when it returns.
  void wait() override {}

  void download(void* host, Tensor tensor) override {
    std::memcpy(host, tensor.data, tensor.bytes());
  }

 private:
  static std::int64_t longest_sum(const ModelShape& model) {
    return std::max({model.hidden, model.intermediate, model.heads * model.head_dim});
  }

  Isa isa_;
  ThreadPool pool_;
  Matmul matmul_;
  std::vector<RowSampler> samplers_;  ///< one per thread
  Buffer attention_scratch_;
  StepView step_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(std::int32_t threads) {
  if (threads < 0 || threads > kMostThreads) {
    throw std::runtime_error("threads is " + std::to_string(threads) + ", must be 0 to " +
                             std::to_string(kMostThreads));
  }
  return std::make_unique<CpuBackend>(threads == 0 ? available_processors() : threads);
}

}  // namespace mobius
