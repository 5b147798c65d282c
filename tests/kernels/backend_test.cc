#include "kernels/backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <random>
#include <stdexcept>
#include <string_view>

#include "kernels/cpu/host.h"
#include "kernels/oracle/ops.h"
#include "tests/kernels/test_data.h"
#include "tests/scratch_folder.h"

namespace mobius {
namespace {

using testing::HasSubstr;
using testing::Throws;
using testing::ThrowsMessage;

KvShape small_kv() {
  KvShape shape;
  shape.num_layers = 1;
  shape.num_pages = 4;
  shape.page_tokens = 16;
  shape.kv_heads = 2;
  shape.head_dim = 32;
  shape.centroid_block = 16;
  return shape;
}

TEST(CpuBackend, SaysWhatItIs) {
  const BackendInfo info = make_cpu_backend(2)->info();
  EXPECT_THAT(info.name, HasSubstr("cpu ("));
  EXPECT_THAT(info.name, HasSubstr("2 threads"));
  EXPECT_EQ(info.threads, 2);
  EXPECT_GT(info.memory_bytes, std::size_t{1} << 20);
  EXPECT_EQ(make_cpu_backend(0)->info().threads, available_processors());
  EXPECT_THROW(make_cpu_backend(-1), std::runtime_error);
  EXPECT_THROW(make_cpu_backend(1 << 20), std::runtime_error);
}

TEST(CpuBackend, AllocatesAlignedMemoryAndRefusesWhatCannotBe) {
  const auto backend = make_cpu_backend(1);
  for (const std::size_t bytes : {0, 1, 100, 4096}) {
    const Buffer buffer = backend->allocate(bytes, "a test");
    EXPECT_EQ(buffer.bytes, bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data.get()) % 64, 0U);
    std::memset(buffer.data.get(), 1, bytes);
  }
  EXPECT_THAT([&] { backend->allocate(std::size_t{1} << 60, "the moon"); },
              ThrowsMessage<std::runtime_error>(HasSubstr("the moon")));
}

TEST(CpuBackend, UsesWeightsInPlaceOrConvertsACopy) {
  std::mt19937 random(1);
  const auto backend = make_cpu_backend(2);
  const TestMatrix a = TestMatrix::random(DType::bf16, 5, 33, random, 1.0F, 2);
  const TestMatrix b = TestMatrix::random(DType::bf16, 7, 33, random, 1.0F, 10);
  const HostTensor blocks[] = {a.host(), b.host()};

  const Weight in_place = backend->load_weight(blocks, DType::bf16);
  EXPECT_EQ(in_place.rows, 12);
  EXPECT_EQ(in_place.cols, 33);
  EXPECT_EQ(in_place.row_blocks[0].data, a.data());
  EXPECT_EQ(in_place.row_blocks[1].data, b.data());
  EXPECT_EQ(in_place.storage, nullptr);

  const Weight widened = backend->load_weight(blocks, DType::f32);
  ASSERT_EQ(widened.row_blocks.size(), 2U);
  for (int i = 0; i < 7 * 33; ++i) {
    ASSERT_EQ(static_cast<const float*>(widened.row_blocks[1].data)[i], b.get(i));
  }

  const TestMatrix wide = TestMatrix::random(DType::f32, 3, 50, random);
  const HostTensor wide_block[] = {wide.host()};
  const Weight narrowed = backend->load_weight(wide_block, DType::bf16);
  ASSERT_NE(narrowed.row_blocks[0].data, wide.data());
  for (int i = 0; i < 150; ++i) {
    const std::uint32_t bits = static_cast<const std::uint16_t*>(narrowed.row_blocks[0].data)[i];
    ASSERT_EQ(std::bit_cast<float>(bits << 16), round_to(DType::bf16, wide.get(i)));
  }

  const std::uint16_t halves[] = {0x3C00, 0xC000, 0x3555};
  const HostTensor half_block[] = {{halves, DType::f16, 1, 3}};
  const Weight from_half = backend->load_weight(half_block, DType::f32);
  const auto* values = static_cast<const float*>(from_half.row_blocks[0].data);
  EXPECT_EQ(values[0], 1.0F);
  EXPECT_EQ(values[1], -2.0F);
  EXPECT_EQ(values[2], 0x1.554p-2F);

  // Addresses that are not even a multiple of the element's size are copied.
  std::vector<std::byte> bytes(1 + 33 * 2);
  std::memcpy(bytes.data() + 1, a.data(), 33 * 2);
  const HostTensor odd[] = {{bytes.data() + 1, DType::bf16, 1, 33}};
  const Weight copied = backend->load_weight(odd, DType::bf16);
  EXPECT_EQ(std::memcmp(copied.row_blocks[0].data, a.data(), 33 * 2), 0);
}

TEST(CpuBackend, RefusesWeightsItCannotUse) {
  const auto backend = make_cpu_backend(1);
  const TestMatrix a(DType::bf16, 2, 4);
  const TestMatrix b(DType::bf16, 2, 5);
  const HostTensor mixed[] = {a.host(), b.host()};
  const HostTensor fine[] = {a.host()};
  const HostTensor empty[] = {{a.data(), DType::bf16, 0, 4}};
  const HostTensor null[] = {{nullptr, DType::bf16, 1, 4}};
  EXPECT_THROW(backend->load_weight({}, DType::bf16), std::runtime_error);
  EXPECT_THROW(backend->load_weight(mixed, DType::bf16), std::runtime_error);
  EXPECT_THROW(backend->load_weight(fine, DType::f16), std::runtime_error);
  EXPECT_THROW(backend->load_weight(fine, DType::e4m3), std::runtime_error);
  EXPECT_THROW(backend->load_weight(empty, DType::bf16), std::runtime_error);
  EXPECT_THROW(backend->load_weight(null, DType::bf16), std::runtime_error);
}

TEST(CpuBackend, ReservesWhatItAnnounces) {
  const auto backend = make_cpu_backend(2);
  const ModelShape model{
      .hidden = 64, .heads = 4, .kv_heads = 2, .head_dim = 32, .intermediate = 100, .vocab = 1000};
  const StepLimits small{.max_rows = 8, .max_sequences = 2, .max_context = 64};
  const StepLimits large{.max_rows = 64, .max_sequences = 2, .max_context = 1 << 16};
  EXPECT_GT(backend->workspace_bytes(model, small_kv(), small), 0U);
  EXPECT_GE(backend->workspace_bytes(model, small_kv(), large),
            backend->workspace_bytes(model, small_kv(), small));
  EXPECT_NO_THROW(backend->reserve_workspace(model, small_kv(), large));
}

/// A step of three rows of two sequences through every operation; the same rows alone must give the
/// same bits.
TEST(CpuBackend, RunsAStepWhoseRowsDoNotDependOnEachOther) {
  std::mt19937 random(5);
  const auto backend = make_cpu_backend(2);
  const ModelShape model{
      .hidden = 64, .heads = 4, .kv_heads = 2, .head_dim = 32, .intermediate = 96, .vocab = 50};
  const StepLimits limits{.max_rows = 8, .max_sequences = 2, .max_context = 64};
  const KvShape shape = small_kv();
  backend->reserve_workspace(model, shape, limits);

  const auto load = [&](const TestMatrix& matrix) {
    const HostTensor block[] = {matrix.host()};
    return backend->load_weight(block, DType::bf16);
  };
  const TestMatrix table = TestMatrix::random(DType::bf16, 50, 64, random);
  const TestMatrix norm = TestMatrix::random(DType::bf16, 1, 64, random);
  const TestMatrix qkv = TestMatrix::random(DType::bf16, 8 * 32, 64, random, 0.1F);
  const TestMatrix out = TestMatrix::random(DType::bf16, 64, 4 * 32, random, 0.1F);
  const TestMatrix gate_up = TestMatrix::random(DType::bf16, 192, 64, random, 0.1F);
  const TestMatrix down = TestMatrix::random(DType::bf16, 64, 96, random, 0.1F);
  const std::vector<float> frequencies(16, 0.1F);
  const HostTensor frequency_row{frequencies.data(), DType::f32, 1, 16};
  const Weight rotation = backend->load_weight(std::span(&frequency_row, 1), DType::f32);

  const auto run = [&](std::vector<std::int32_t> tokens, std::vector<SequenceSlice> slices,
                       KvPool& pool) {
    const auto rows = static_cast<std::int64_t>(tokens.size());
    TestMatrix x(DType::f32, rows, 64);
    TestMatrix h(DType::bf16, rows, 64);
    TestMatrix projected(DType::f32, rows, 8 * 32);
    TestMatrix q(DType::bf16, rows, 4 * 32);
    TestMatrix attended(DType::bf16, rows, 4 * 32);
    TestMatrix inner(DType::f32, rows, 192);
    TestMatrix act(DType::bf16, rows, 96);
    TestMatrix logits(DType::f32, rows, 50);
    backend->begin_step({tokens, slices, {}});
    backend->embed(x.tensor(), load(table));
    backend->rms_norm(h.tensor(), x.tensor(), load(norm), 1e-5F);
    backend->matmul(projected.tensor(), h.tensor(), load(qkv), false);
    backend->rope_append(q.tensor(), projected.tensor(), pool, 0, rotation);
    backend->attention(attended.tensor(), q.tensor(), pool, 0);
    backend->matmul(x.tensor(), attended.tensor(), load(out), true);
    backend->rms_norm(h.tensor(), x.tensor(), load(norm), 1e-5F);
    backend->matmul(inner.tensor(), h.tensor(), load(gate_up), false);
    backend->silu_mul(act.tensor(), inner.tensor());
    backend->matmul(x.tensor(), act.tensor(), load(down), true);
    backend->rms_norm(h.tensor(), x.tensor(), load(norm), 1e-5F);
    backend->matmul(logits.tensor(), h.tensor(), load(table), false);
    std::vector<float> host(static_cast<std::size_t>(rows * 50));
    backend->download(host.data(), logits.tensor());
    return host;
  };

  const std::vector<PageId> first_pages = {2};
  const std::vector<PageId> second_pages = {0};
  const auto slice = [](std::int32_t row, std::int32_t count, std::int32_t position,
                        const std::vector<PageId>& pages) {
    SequenceSlice s;
    s.first_row = row;
    s.num_rows = count;
    s.first_position = position;
    s.pages = pages;
    s.policy = AttentionPolicy::moba(16, 2);
    return s;
  };
  const auto pool = backend->create_kv_pool(shape);
  const std::vector<float> together =
      run({7, 8, 49}, {slice(0, 2, 0, first_pages), slice(2, 1, 0, second_pages)}, *pool);
  const auto alone_pool = backend->create_kv_pool(shape);
  std::vector<float> alone;
  for (const auto& part : {run({7}, {slice(0, 1, 0, first_pages)}, *alone_pool),
                           run({8}, {slice(0, 1, 1, first_pages)}, *alone_pool),
                           run({49}, {slice(0, 1, 0, second_pages)}, *alone_pool)}) {
    alone.insert(alone.end(), part.begin(), part.end());
  }
  EXPECT_EQ(together, alone);
  for (const float logit : together) ASSERT_TRUE(std::isfinite(logit));
}

TEST(CpuBackend, SamplesEveryRowByItsOwnParameters) {
  const auto backend = make_cpu_backend(3);
  constexpr std::int64_t kRows = 20;
  TestMatrix logits(DType::f32, kRows, 100);
  std::vector<SamplingParams> params(kRows);
  std::vector<SampleRow> rows(kRows);
  for (std::int64_t i = 0; i < kRows; ++i) {
    for (std::int64_t token = 0; token < 100; ++token) {
      logits.set(i * 100 + token, token == 3 * i ? 5.0F : 0.0F);
    }
    const auto at = static_cast<std::size_t>(i);
    params[at].temperature = 0.0F;
    if (i == 4) params[at].logit_bias = {{99, 100.0F}};
    if (i == 5) params[at].top_logprobs = 1;
    rows[at].params = &params[at];
  }
  std::vector<SampledToken> out(kRows);
  backend->sample(out, logits.tensor(), rows);
  backend->wait();
  for (std::int64_t i = 0; i < kRows; ++i) {
    EXPECT_EQ(out[static_cast<std::size_t>(i)].token, i == 4 ? 99 : 3 * i);
  }
  EXPECT_EQ(out[5].top.size(), 1U);
  EXPECT_LT(out[5].logprob, 0.0F);
  EXPECT_TRUE(logits.margins_intact());
}

TEST(CpuBackend, RefusesToSampleWhatDoesNotFit) {
  const auto backend = make_cpu_backend(1);
  TestMatrix logits(DType::f32, 2, 10);
  const SamplingParams params;
  std::vector<SampleRow> rows(2);
  rows[0].params = rows[1].params = &params;
  std::vector<SampledToken> out(2);
  std::vector<SampledToken> one(1);
  Tensor bf16 = logits.tensor();
  bf16.dtype = DType::bf16;
  EXPECT_THROW(backend->sample(out, bf16, rows), std::invalid_argument);
  EXPECT_THROW(backend->sample(one, logits.tensor(), rows), std::invalid_argument);
  EXPECT_THROW(backend->sample(out, logits.tensor().head(1), rows), std::invalid_argument);
  rows[1].params = nullptr;
  EXPECT_THROW(backend->sample(out, logits.tensor(), rows), std::invalid_argument);
  EXPECT_TRUE(logits.untouched());
}

TEST(CpuBackend, RefusesAnotherBackendsPool) {
  class OtherPool final : public KvPool {
   public:
    OtherPool() : KvPool(small_kv()) {}
  };
  const auto backend = make_cpu_backend(1);
  OtherPool pool;
  const std::vector<float> frequencies(16, 0.1F);
  const HostTensor row{frequencies.data(), DType::f32, 1, 16};
  const Weight rotation = backend->load_weight(std::span(&row, 1), DType::f32);
  EXPECT_THROW(backend->rope_append({}, {}, pool, 0, rotation), std::invalid_argument);
  EXPECT_THROW(backend->rope_append({}, {}, pool, 0, {}), std::invalid_argument);
  EXPECT_THROW(backend->attention({}, {}, pool, 0), std::invalid_argument);
}

/// A file system of the few files that limits are read from.
class HostLimits : public testing::Test {
 protected:
  HostLimits() { write("proc/meminfo", "MemTotal: 1000000 kB\nMemAvailable:   500000 kB\n"); }
  void write(std::string_view file, std::string_view text) const { folder_.write(file, text); }
  const std::filesystem::path& root() const { return folder_.path(); }

 private:
  ScratchFolder folder_;
};

TEST_F(HostLimits, MemoryIsWhatTheKernelCallsAvailable) {
  EXPECT_EQ(available_memory(root()), 500000U * 1024);
  EXPECT_THROW(available_memory(root() / "nowhere"), std::runtime_error);
}

TEST_F(HostLimits, MemoryIsBoundByControlGroups) {
  write("proc/self/cgroup", "0::/a/b\n");
  write("sys/fs/cgroup/a/b/memory.max", "max\n");
  write("sys/fs/cgroup/a/b/memory.current", "1000\n");
  EXPECT_EQ(available_memory(root()), 500000U * 1024);
  write("sys/fs/cgroup/a/memory.max", "1000000\n");
  write("sys/fs/cgroup/a/memory.current", "700000\n");
  EXPECT_EQ(available_memory(root()), 300000U);
  write("sys/fs/cgroup/a/memory.stat", "anon 5\ninactive_file 90000\nactive_file 10000\n");
  EXPECT_EQ(available_memory(root()), 400000U);
  write("sys/fs/cgroup/a/memory.current", "2000000\n");
  EXPECT_EQ(available_memory(root()), 0U);
}

TEST_F(HostLimits, MemoryIsBoundByVersionOneGroups) {
  write("proc/self/cgroup", "5:memory:/job\n4:cpu,cpuacct:/job\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "500000\n");
  write("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 100000\n");
  EXPECT_EQ(available_memory(root()), 1600000U);
}

TEST_F(HostLimits, ProcessorsAreBoundByTheQuota) {
  EXPECT_GE(available_processors(root()), 1);
  write("proc/self/cgroup", "0::/a\n");
  write("sys/fs/cgroup/a/cpu.max", "max 100000\n");
  EXPECT_EQ(available_processors(root()), available_processors("/nowhere"));
  write("sys/fs/cgroup/a/cpu.max", "50000 100000\n");
  EXPECT_EQ(available_processors(root()), 1);
}

}  // namespace
}  // namespace mobius
