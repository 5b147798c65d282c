// Times steps of a Llama-shaped model of random weights on the CUDA backend: prefill, single-stream
// decode and a batch of streams, each beside its floor.
//
//   step_bench [--layers N] [--weights bf16|fp8|both] [--kv bf16|fp8] [--context N] [--only TEXT]
//              [--json FILE --commit ID --date DATE]
//
// --context: instead of the usual rows, the last token and the last 8,192 of so many (a multiple of
// 128), under full attention and MoBA.
// --only times the rows whose name contains TEXT, e.g. "decode".
// Layers are timed as a whole model of N layers; the default is Llama 3.1 8B's 32 (16 GB of
// weights), first in bf16, then in fp8. Keys and values before the timed tokens are random numbers.

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/kv_cache.h"
#include "kernels/cuda/matmul_tuning.h"

namespace mobius::gpu {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int32_t kHidden = 4096;
constexpr std::int32_t kHeads = 32;
constexpr std::int32_t kKvHeads = 8;
constexpr std::int32_t kHeadDim = 128;
constexpr std::int32_t kIntermediate = 14336;
constexpr std::int32_t kVocab = 128256;
constexpr std::int32_t kPage = 128;
constexpr std::int32_t kBlock = 512;  ///< MoBA's, whose centroids are stored

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// The operations of models/llama.cc on weights that no file holds.
class Model {
 public:
  Model(std::int32_t layers, DType matrices, std::int32_t max_rows, std::int32_t max_sequences,
        std::int32_t context, std::int32_t tokens, bool fp8_kv)
      : fp8_kv_(fp8_kv), backend_(make_cuda_backend(0)), max_rows_(max_rows) {
    embedding_ = weight(kVocab, kHidden, DType::bf16);
    head_ = weight(kVocab, kHidden, matrices);
    norm_ = weight(1, kHidden, DType::f32);
    rotation_ = weight(1, kHeadDim / 2, DType::f32);
    constexpr std::int32_t kQuery = kHeads * kHeadDim;
    for (std::int32_t i = 0; i < layers; ++i) {
      layers_.push_back({weight(kQuery + 2 * kKvHeads * kHeadDim, kHidden, matrices),
                         weight(kHidden, kQuery, matrices),
                         weight(2 * kIntermediate, kHidden, matrices),
                         weight(kHidden, kIntermediate, matrices)});
    }
    const ModelShape shape{kHidden,       kHeads, kKvHeads,    kHeadDim,
                           kIntermediate, kVocab, DType::bf16, matrices == DType::e4m3};
    const KvShape kv{layers,   tokens / kPage, kPage,  kKvHeads,
                     kHeadDim, DType::bf16,    kBlock, fp8_kv};
    backend_->reserve_workspace(shape, kv, {max_rows, max_sequences, context});
    pool_ = backend_->create_kv_pool(kv);
    const auto& cells = static_cast<CudaKvPool&>(*pool_);
    if (fp8_kv) {
      // Every code is 240, every scale 2^-8.
      const std::size_t vectors = std::size_t{2} * static_cast<std::size_t>(layers) *
                                  static_cast<std::size_t>(tokens) * kKvHeads;
      MOBIUS_CUDA(cudaMemset(cells.keys(0), 0x77, vectors * (kHeadDim + 1)));
    } else {
      launch_random(
          {cells.keys(0), DType::bf16, std::int64_t{2} * layers * tokens, kKvHeads * kHeadDim},
          nullptr);
    }
    MOBIUS_CUDA(cudaDeviceSynchronize());
    const auto rows = static_cast<std::size_t>(max_rows);
    residual_ = backend_->allocate(rows * kHidden * 4, "activations");
    normed_ = backend_->allocate(rows * kIntermediate * 2, "activations");
    projected_ = backend_->allocate(rows * kIntermediate * 8, "activations");
    query_ = backend_->allocate(rows * kQuery * 2, "activations");
    attended_ = backend_->allocate(rows * kQuery * 2, "activations");
    logits_ = backend_->allocate(static_cast<std::size_t>(max_sequences) * kVocab * 4, "logits");
    sampled_ = backend_->allocate(static_cast<std::size_t>(max_sequences) * kHidden * 8, "rows");
  }

  /// Bytes of weights that a token must read.
  double read_bytes() const {
    const auto bytes = [](const Weight& weight) {
      return static_cast<double>(
          weight_bytes(weight.row_blocks.front().dtype, weight.rows, weight.cols));
    };
    double sum = bytes(head_);
    for (const Layer& layer : layers_) {
      sum += bytes(layer.qkv) + bytes(layer.output) + bytes(layer.gate_up) + bytes(layer.down);
    }
    return sum;
  }
  /// Floating-point operations of a token's products.
  double product_flops() const {
    constexpr double kLayer = double{kHidden} * (kHeads + 2 * kKvHeads) * kHeadDim +
                              double{kHidden} * kHeads * kHeadDim +
                              3.0 * double{kHidden} * kIntermediate;
    return 2.0 * (kLayer * static_cast<double>(layers_.size()) + double{kVocab} * kHidden);
  }
  /// Bytes of keys and values of one token.
  double kv_bytes() const {
    return 2.0 * kKvHeads * (fp8_kv_ ? kHeadDim + 1 : 2 * kHeadDim) *
           static_cast<double>(layers_.size());
  }

  /// Seconds of a step of `streams` slices of `rows` tokens after `context` others each.
  double step(std::int32_t streams, std::int32_t rows, std::int32_t context,
              const AttentionPolicy& policy) {
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(streams * rows));
    for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(random_() % kVocab);
    const std::int32_t pages_each = (context + rows + kPage - 1) / kPage;
    std::vector<PageId> pages(static_cast<std::size_t>(pages_each) *
                              static_cast<std::size_t>(streams));
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), std::mt19937(1));
    std::vector<SequenceSlice> slices;
    std::vector<std::int32_t> last;
    SamplingParams greedy;
    greedy.temperature = 0;
    std::vector<SampleRow> samples(static_cast<std::size_t>(streams));
    std::vector<SampledToken> out(samples.size());
    for (std::int32_t i = 0; i < streams; ++i) {
      slices.push_back({i * rows, rows, context,
                        std::span(pages).subspan(static_cast<std::size_t>(i * pages_each),
                                                 static_cast<std::size_t>(pages_each)),
                        policy, 0});
      last.push_back((i + 1) * rows - 1);
      samples[static_cast<std::size_t>(i)].params = &greedy;
    }
    const auto start = Clock::now();
    forward({tokens, slices, last});
    backend_->sample(out, logits_.view(DType::f32, streams, kVocab), samples);
    backend_->wait();
    return seconds_since(start);
  }

 private:
  struct Layer {
    Weight qkv, output, gate_up, down;
  };

  Weight weight(std::int64_t rows, std::int64_t cols, DType dtype) {
    Weight result;
    result.rows = rows;
    result.cols = cols;
    if (dtype == DType::e4m3) {
      const Weight values = weight(rows, cols, DType::bf16);
      result.storage = allocate_device(weight_bytes(dtype, rows, cols), "weights");
      auto* codes = static_cast<std::byte*>(result.storage.get());
      auto* scales = reinterpret_cast<float*>(codes + rows * cols);
      launch_quantise(codes, scales, values.storage.get(), DType::bf16, rows, cols, nullptr);
      MOBIUS_CUDA(cudaDeviceSynchronize());
      result.row_blocks.push_back({codes, dtype, rows, cols});
      result.row_scales = scales;
      return result;
    }
    const HostTensor shape{nullptr, dtype, rows, cols};
    result.storage = allocate_device(shape.bytes(), "weights");
    result.row_blocks.push_back({result.storage.get(), dtype, rows, cols});
    launch_random({result.storage.get(), DType::bf16, rows,
                   cols * static_cast<std::int64_t>(size_of(dtype)) / 2},
                  nullptr);
    return result;
  }

  void forward(const StepView& step) {
    const auto rows = static_cast<std::int64_t>(step.tokens.size());
    const auto wanted = static_cast<std::int64_t>(step.logit_rows.size());
    const Tensor residual = residual_.view(DType::f32, rows, kHidden);
    const Tensor normed = normed_.view(DType::bf16, rows, kHidden);
    const Tensor qkv = projected_.view(DType::f32, rows, (kHeads + 2 * kKvHeads) * kHeadDim);
    const Tensor query = query_.view(DType::bf16, rows, kHeads * kHeadDim);
    const Tensor attended = attended_.view(DType::bf16, rows, kHeads * kHeadDim);
    const Tensor gate_up = projected_.view(DType::f32, rows, 2 * kIntermediate);
    const Tensor gated = normed_.view(DType::bf16, rows, kIntermediate);
    backend_->begin_step(step);
    backend_->embed(residual, embedding_);
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const Layer& layer = layers_[i];
      const auto index = static_cast<std::int32_t>(i);
      backend_->rms_norm(normed, residual, norm_, 1e-5F);
      backend_->matmul(qkv, normed, layer.qkv, false);
      backend_->rope_append(query, qkv, *pool_, index, rotation_);
      backend_->attention(attended, query, *pool_, index);
      backend_->matmul(residual, attended, layer.output, true);
      backend_->rms_norm(normed, residual, norm_, 1e-5F);
      backend_->matmul(gate_up, normed, layer.gate_up, false);
      backend_->silu_mul(gated, gate_up);
      backend_->matmul(residual, gated, layer.down, true);
    }
    const Tensor sampled = sampled_.view(DType::f32, wanted, kHidden);
    const Tensor head_in = normed_.view(DType::bf16, wanted, kHidden);
    backend_->gather_rows(sampled, residual);
    backend_->rms_norm(head_in, sampled, norm_, 1e-5F);
    backend_->matmul(logits_.view(DType::f32, wanted, kVocab), head_in, head_, false);
  }

  bool fp8_kv_;
  std::unique_ptr<Backend> backend_;
  std::int32_t max_rows_;
  Weight embedding_, head_, norm_, rotation_;
  std::vector<Layer> layers_;
  std::unique_ptr<KvPool> pool_;
  Buffer residual_, normed_, projected_, query_, attended_, logits_, sampled_;
  std::mt19937 random_{5};
};

/// GB/s of a large copy on the device, counting bytes read and written.
double copy_rate() {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  const auto from = allocate_device(kBytes, "a copy");
  const auto to = allocate_device(kBytes, "a copy");
  launch_random({from.get(), DType::bf16, 1, static_cast<std::int64_t>(kBytes / 2)}, nullptr);
  double best = 1e9;
  for (int i = 0; i < 6; ++i) {
    MOBIUS_CUDA(cudaDeviceSynchronize());
    const auto start = Clock::now();
    MOBIUS_CUDA(cudaMemcpyAsync(to.get(), from.get(), kBytes, cudaMemcpyDeviceToDevice, nullptr));
    MOBIUS_CUDA(cudaDeviceSynchronize());
    best = std::min(best, seconds_since(start));
  }
  return 2.0 * static_cast<double>(kBytes) / best * 1e-9;
}

struct Row {
  std::string name;
  double milliseconds = 0;
  double floor_milliseconds = 0;
  double tokens_per_second = 0;
};

int run(int argc, char** argv) {
  std::int32_t layers = 32;
  std::string weights = "both";
  std::string kv = "bf16";
  std::int32_t context = 0;
  std::string only;
  std::string json, commit = "unknown", date = "unknown";
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string argument = argv[i];
    if (argument == "--layers") layers = std::stoi(argv[i + 1]);
    if (argument == "--weights") weights = argv[i + 1];
    if (argument == "--kv") kv = argv[i + 1];
    if (argument == "--context") context = std::stoi(argv[i + 1]);
    if (argument == "--only") only = argv[i + 1];
    if (argument == "--json") json = argv[i + 1];
    if (argument == "--commit") commit = argv[i + 1];
    if (argument == "--date") date = argv[i + 1];
  }
  if (weights != "bf16" && weights != "fp8" && weights != "both") {
    throw std::runtime_error("--weights is \"" + weights + "\", must be bf16, fp8 or both");
  }
  if (kv != "bf16" && kv != "fp8") {
    throw std::runtime_error("--kv is \"" + kv + "\", must be bf16 or fp8");
  }
  cudaDeviceProp properties{};
  MOBIUS_CUDA(cudaGetDeviceProperties(&properties, 0));
  const double rate = copy_rate();
  std::printf("%s, copy %.0f GB/s, %d layers\n", properties.name, rate, layers);
  constexpr std::int32_t kLongest = 65536;
  constexpr std::int32_t kRows = 8192;
  std::vector<Row> rows;
  const auto time_all = [&](DType matrices) {
    Model model(layers, matrices, kRows, 64, std::max(context, kLongest),
                context > 0 ? context : 2 * kLongest, kv == "fp8");
    const auto time = [&](std::string name, std::int32_t streams, std::int32_t count,
                          std::int32_t history, const AttentionPolicy& policy) {
      if (kv == "fp8") name += ", fp8 KV";
      if (matrices == DType::e4m3) name += ", fp8";
      if (name.find(only) == std::string::npos) return;
      const int repetitions = count > 1 ? 3 : 9;
      for (int i = 0; i < 2; ++i) model.step(streams, count, history, policy);
      std::vector<double> seconds;
      for (int i = 0; i < repetitions; ++i) {
        seconds.push_back(model.step(streams, count, history, policy));
      }
      Row row;
      row.name = name;
      row.milliseconds = median(seconds) * 1e3;
      row.tokens_per_second = streams * count / (row.milliseconds * 1e-3);
      const double read = model.read_bytes() + model.kv_bytes() * streams * history;
      row.floor_milliseconds = read / (rate * 1e9) * 1e3;
      if (count > 1) {
        // Products and attention at 790 TFLOP/s, what a large product reaches on this card.
        const double products = model.product_flops() * streams * count;
        const double attention = 4.0 * kHeads * kHeadDim * layers * streams *
                                 static_cast<double>(count) * (history + 0.5 * count);
        row.floor_milliseconds = (products + attention) / 790e12 * 1e3;
      }
      std::printf("%-44s %9.2f ms  floor %9.2f ms (%3.0f %%)  %9.0f tokens/s\n", name.c_str(),
                  row.milliseconds, row.floor_milliseconds,
                  100.0 * row.floor_milliseconds / row.milliseconds, row.tokens_per_second);
      std::fflush(stdout);
      rows.push_back(row);
    };
    const auto full = AttentionPolicy::full();
    if (context > 0) {
      const std::string length = std::to_string(context);
      for (const auto& policy :
           {full, AttentionPolicy::moba(kBlock, 8), AttentionPolicy::moba(4096, 12)}) {
        const std::string name =
            policy.mode == AttentionMode::full
                ? ""
                : ", MoBA " + std::to_string(policy.block) + "/" + std::to_string(policy.top_k);
        time("decode at " + length + name, 1, 1, context - 1, policy);
        time("prefill of 8192 up to " + length + name, 1, kRows, context - kRows, policy);
      }
      return;
    }
    time("decode, 1 stream at 1K", 1, 1, 1023, full);
    time("decode, 1 stream at 64K", 1, 1, kLongest - 1, full);
    time("decode, 1 stream at 64K, MoBA", 1, 1, kLongest - 1, AttentionPolicy::moba(kBlock, 8));
    time("decode, 16 streams at 1K", 16, 1, 1023, full);
    time("decode, 64 streams at 1K", 64, 1, 1023, full);
    time("prefill, 512 tokens", 1, 512, 0, full);
    time("prefill, 2048 tokens", 1, 2048, 0, full);
    time("prefill, 8192 tokens", 1, kRows, 0, full);
  };
  if (weights != "fp8") time_all(DType::bf16);
  if (weights != "bf16") time_all(DType::e4m3);
  if (json.empty()) return 0;
  std::ofstream out(json);
  out << "{\n  \"device\": \"" << properties.name << "\",\n  \"date\": \"" << date
      << "\",\n  \"commit\": \"" << commit << "\",\n  \"layers\": " << layers
      << ",\n  \"copy_gb_per_s\": " << rate << ",\n  \"rows\": [";
  for (std::size_t i = 0; i < rows.size(); ++i) {
    out << (i == 0 ? "\n" : ",\n") << "    {\"name\": \"" << rows[i].name
        << "\", \"ms\": " << rows[i].milliseconds
        << ", \"floor_ms\": " << rows[i].floor_milliseconds
        << ", \"tokens_per_s\": " << rows[i].tokens_per_second << "}";
  }
  out << "\n  ]\n}\n";
  return out ? 0 : 1;
}

}  // namespace
}  // namespace mobius::gpu

int main(int argc, char** argv) {
  try {
    return mobius::gpu::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "step_bench: %s\n", error.what());
    return 1;
  }
}
