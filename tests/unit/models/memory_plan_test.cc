#include "models/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

#include "models/llama.h"
#include "tests/unit/models/scratch.h"

namespace mobius {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// Costs of a made-up device; computes nothing.
class PricedBackend : public Backend {
 public:
  explicit PricedBackend(std::size_t memory, bool fp8_weights = false)
      : memory_(memory), fp8_weights_(fp8_weights) {}

  BackendInfo info() const override {
    return {.name = "priced", .memory_bytes = memory_, .threads = 1, .fp8_weights = fp8_weights_};
  }
  /// As many bytes as keys and values have, and 4096 for the pool itself.
  std::size_t kv_bytes(const KvShape& kv) const override {
    return 4096 + std::size_t{2} * kv.num_layers * kv.num_pages * kv.page_tokens * kv.kv_heads *
                      kv.head_dim * size_of(kv.fp8 ? DType::e4m3 : kv.dtype);
  }
  std::size_t workspace_bytes(const ModelShape& /*model*/, const KvShape& /*kv*/,
                              const StepLimits& limits) const override {
    return static_cast<std::size_t>(limits.max_context);
  }

  Buffer allocate(std::size_t /*bytes*/, std::string_view /*purpose*/) override { unexpected(); }
  Weight load_weight(std::span<const HostTensor> /*blocks*/, DType /*dtype*/) override {
    unexpected();
  }
  std::unique_ptr<KvPool> create_kv_pool(const KvShape& /*shape*/) override { unexpected(); }
  void reserve_workspace(const ModelShape& /*model*/, const KvShape& /*kv*/,
                         const StepLimits& /*limits*/) override {
    unexpected();
  }
  void begin_step(const StepView& /*step*/) override { unexpected(); }
  void embed(Tensor /*out*/, const Weight& /*table*/) override { unexpected(); }
  void rms_norm(Tensor /*out*/, Tensor /*in*/, const Weight& /*weight*/, float /*eps*/) override {
    unexpected();
  }
  void matmul(Tensor /*out*/, Tensor /*in*/, const Weight& /*weight*/, bool /*add*/) override {
    unexpected();
  }
  void rope_append(Tensor /*q_out*/, Tensor /*qkv*/, KvPool& /*kv*/, std::int32_t /*layer*/,
                   const Weight& /*frequencies*/) override {
    unexpected();
  }
  void attention(Tensor /*out*/, Tensor /*q*/, const KvPool& /*kv*/,
                 std::int32_t /*layer*/) override {
    unexpected();
  }
  void silu_mul(Tensor /*out*/, Tensor /*gate_up*/) override { unexpected(); }
  void gather_rows(Tensor /*out*/, Tensor /*in*/) override { unexpected(); }
  void sample(std::span<SampledToken> /*out*/, Tensor /*logits*/,
              std::span<const SampleRow> /*rows*/) override {
    unexpected();
  }
  void wait() override { unexpected(); }
  void download(void* /*host*/, Tensor /*tensor*/) override { unexpected(); }

 private:
  [[noreturn]] static void unexpected() {
    throw std::logic_error("planning must neither take memory nor compute");
  }
  std::size_t memory_;
  bool fp8_weights_;
};

/// 1 KiB of KV cache per token in bf16.
LlamaConfig config() {
  LlamaConfig config;
  config.hidden_size = 256;
  config.intermediate_size = 512;
  config.num_layers = 4;
  config.num_heads = 4;
  config.num_kv_heads = 1;
  config.head_dim = 64;
  config.vocab_size = 320;
  config.max_position_embeddings = 131072;
  return config;
}

constexpr std::size_t kMiB = 1 << 20;
constexpr WeightMemory kWeights{.mapped_bytes = 5 * kMiB, .copied_bytes = 0};

MemoryPlan plan(const ModelOptions& options, std::size_t memory = 4096 * kMiB,
                DType stored = DType::bf16) {
  return plan_memory(options, config(), stored, kWeights, PricedBackend(memory));
}

std::string refusal(const ModelOptions& options, std::size_t memory = 4096 * kMiB) {
  const std::string message = message_of([&] { plan(options, memory); });
  EXPECT_THAT(message, Not(HasSubstr("\n")));
  return message;
}

TEST(MemoryPlan, DefaultHoldsTwoOfTheLongestSequences) {
  const MemoryPlan result = plan({});
  EXPECT_EQ(result.kv.num_pages, 2 * 131072 / 128);
  EXPECT_EQ(result.limits.max_context, 131072);
  EXPECT_EQ(result.limits.max_rows, 512);
  EXPECT_EQ(result.limits.max_sequences, 64);
  EXPECT_EQ(result.kv_bytes, 256 * kMiB + 4096);
  EXPECT_EQ(result.workspace_bytes, activation_bytes(result.model, result.limits) + 131072);
  EXPECT_EQ(result.total_bytes(), 5 * kMiB + result.workspace_bytes + result.kv_bytes);
}

TEST(MemoryPlan, DefaultLeavesAFifthOfScarceMemory) {
  const MemoryPlan result = plan({}, 100 * kMiB);
  const std::size_t left = 100 * kMiB - 5 * kMiB - (result.workspace_bytes);
  EXPECT_LE(result.kv_bytes, left / 100 * 80);
  EXPECT_GE(result.kv_bytes, left / 100 * 80 - 300 * 1024);  // a page, and a shorter workspace
  EXPECT_EQ(result.limits.max_context, result.kv.num_pages * 128);
  EXPECT_LE(result.total_bytes(), 100 * kMiB);
}

TEST(MemoryPlan, KvCacheBytesAreFilledToTheLastPage) {
  ModelOptions options;
  options.kv_cache_bytes = 10 * kMiB;
  const MemoryPlan result = plan(options);
  EXPECT_LE(result.kv_bytes, options.kv_cache_bytes);
  EXPECT_GT(result.kv_bytes + 128 * 1024, options.kv_cache_bytes);
  EXPECT_EQ(result.limits.max_context, result.kv.num_pages * 128);
}

TEST(MemoryPlan, MoreCacheThanOneContextKeepsTheModelsLimit) {
  ModelOptions options;
  options.kv_cache_bytes = 512 * kMiB;
  const MemoryPlan result = plan(options);
  EXPECT_GT(result.kv.num_pages * 128, 131072);
  EXPECT_EQ(result.limits.max_context, 131072);
}

TEST(MemoryPlan, MaxContextIsAPromise) {
  ModelOptions options;
  options.max_context = 10'000;  // 79 pages
  options.kv_cache_bytes = 79 * 128 * 1024 + 4096;
  EXPECT_EQ(plan(options).limits.max_context, 10'000);
  options.kv_cache_bytes -= 1;
  EXPECT_THAT(refusal(options),
              HasSubstr("model.max_context is 10000 tokens, but kv.bytes = 10358783 holds 9984"));
}

TEST(MemoryPlan, RefusesOptionsOutOfRange) {
  const auto with = [](auto&& change) {
    ModelOptions options;
    change(options);
    return refusal(options);
  };
  EXPECT_THAT(with([](auto& o) { o.page_tokens = 0; }),
              HasSubstr("kv.page_tokens is 0, must be from 1 to 4096"));
  EXPECT_THAT(with([](auto& o) { o.step_tokens = -1; }), HasSubstr("engine.step_tokens is -1"));
  EXPECT_THAT(with([](auto& o) { o.max_sequences = 0; }), HasSubstr("engine.max_running is 0"));
  EXPECT_THAT(with([](auto& o) { o.max_context = 131073; }),
              HasSubstr("model.max_context is 131073, must be from 0 to 131072"));
  EXPECT_THAT(with([](auto& o) { o.centroid_block = 200; }),
              HasSubstr("centroid_block: block is 200, must be a positive multiple of the page"));
  EXPECT_THAT(with([](auto& o) { o.compute_dtype = DType::f16; }),
              HasSubstr("model.dtype is f16, must be bf16 or f32"));
}

TEST(MemoryPlan, RefusesWhatMemoryCannotHold) {
  ModelOptions options;
  EXPECT_THAT(refusal(options, 4 * kMiB),
              AllOf(HasSubstr("weights 5.00 MiB"), HasSubstr("priced has 4.00 MiB")));
  EXPECT_THAT(refusal(options, 6 * kMiB), HasSubstr("engine.step_tokens = 512"));
  options.kv_cache_bytes = 200 * kMiB;
  EXPECT_THAT(refusal(options, 100 * kMiB),
              AllOf(HasSubstr("kv.bytes is 209715200 (200.00 MiB)"), HasSubstr("leave")));
  options.kv_cache_bytes = 100 * 1024;
  EXPECT_THAT(refusal(options),
              HasSubstr("kv.bytes = 102400 cannot hold one page of 128 tokens (132.00 KiB)"));
}

TEST(MemoryPlan, ComputeTypeFollowsStorage) {
  EXPECT_EQ(plan({}, 4096 * kMiB, DType::bf16).kv.dtype, DType::bf16);
  EXPECT_EQ(plan({}, 4096 * kMiB, DType::f32).kv.dtype, DType::f32);
  EXPECT_EQ(plan({}, 4096 * kMiB, DType::f16).model.activation, DType::f32);
  ModelOptions options;
  options.compute_dtype = DType::bf16;
  EXPECT_EQ(plan(options, 4096 * kMiB, DType::f16).model.activation, DType::bf16);
}

TEST(MemoryPlan, Fp8WeightsNeedABackendThatTakesThem) {
  ModelOptions options;
  options.fp8_weights = true;
  EXPECT_THAT(refusal(options), HasSubstr("model.quantization is fp8, must be none with priced"));
  const MemoryPlan result = plan_memory(options, config(), DType::bf16, {.copied_bytes = kMiB},
                                        PricedBackend(4096 * kMiB, true));
  EXPECT_TRUE(result.model.fp8_weights);
  EXPECT_EQ(result.model.activation, DType::bf16);
  EXPECT_THAT(render(result), HasSubstr("fp8 in products"));
  EXPECT_FALSE(plan({}).model.fp8_weights);
}

TEST(MemoryPlan, Fp8HalvesThePagesOfTheKvCache) {
  ModelOptions options;
  options.kv_cache_bytes = 64 * kMiB;
  const MemoryPlan bf16 = plan(options);
  options.fp8_kv = true;
  const MemoryPlan fp8 = plan(options);
  EXPECT_FALSE(bf16.kv.fp8);
  EXPECT_TRUE(fp8.kv.fp8);
  EXPECT_EQ(fp8.kv.dtype, DType::bf16);
  EXPECT_GE(fp8.kv.num_pages, 2 * bf16.kv.num_pages - 2);
  EXPECT_LE(fp8.kv_bytes, options.kv_cache_bytes);
  EXPECT_THAT(render(bf16), HasSubstr("bf16, " + std::to_string(bf16.kv.num_pages) + " pages"));
  EXPECT_THAT(render(fp8), HasSubstr("fp8, " + std::to_string(fp8.kv.num_pages) + " pages"));
}

TEST(MemoryPlan, RendersOneLinePerItem) {
  const std::string table = render(plan({}));
  for (const char* part :
       {"memory ", "4.00 GiB  priced", "weights ", "5.00 MiB", "workspace ", "KV cache ",
        "2048 pages of 128 tokens = 262144 tokens", "total ", "longest context", "131072 tokens"}) {
    EXPECT_THAT(table, HasSubstr(part));
  }
  EXPECT_EQ(table.back(), '\n');
  EXPECT_THAT(table, HasSubstr("mapped from the checkpoint"));
}

TEST(MemoryPlan, SaysWhatIsCopied) {
  MemoryPlan copied = plan({});
  std::swap(copied.weights.mapped_bytes, copied.weights.copied_bytes);
  EXPECT_THAT(render(copied),
              AllOf(HasSubstr("5.00 MiB  copied from the checkpoint"), Not(HasSubstr("mapped"))));
  copied.weights.mapped_bytes = copied.weights.copied_bytes;
  EXPECT_THAT(render(copied), AllOf(HasSubstr("5.00 MiB  mapped from the checkpoint"),
                                    HasSubstr("5.00 MiB  copied from the checkpoint")));
}

}  // namespace
}  // namespace mobius
