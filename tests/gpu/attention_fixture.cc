#include "tests/gpu/attention_fixture.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cuda/check.h"
#include "kernels/fp8.h"

namespace mobius::gpu {
namespace {

constexpr std::int32_t kLayers = 2;
constexpr std::int32_t kLayer = 1;

KvShape shape_of(const AttentionSizes& sizes, std::int32_t num_pages) {
  return {kLayers,        num_pages,   sizes.page_tokens,    sizes.kv_heads,
          sizes.head_dim, DType::bf16, sizes.centroid_block, sizes.fp8};
}

/// Values of a page's records (kernels/cuda/hopper/moba.h), [kv_heads, page_tokens, head_dim].
std::vector<float> unpacked_records(std::span<const std::byte> bytes, std::int32_t head_dim) {
  const auto head = static_cast<std::size_t>(head_dim);
  const auto record = static_cast<std::size_t>(hopper::record_bytes(head_dim));
  std::vector<float> values;
  for (std::size_t at = 0; at < bytes.size(); at += record) {
    for (std::size_t slot = 0; slot < hopper::kRecordTokens; ++slot) {
      const auto scale = static_cast<std::uint8_t>(bytes[at + hopper::kRecordTokens * head + slot]);
      for (std::size_t d = 0; d < head; ++d) {
        const auto code = static_cast<std::uint8_t>(bytes[at + slot * head + d]);
        values.push_back(from_e4m3(code) * kv_scale(scale));
      }
    }
  }
  return values;
}

}  // namespace

AttentionFixture::AttentionFixture(const AttentionSizes& sizes_in, const StepLimits& limits,
                                   std::int32_t num_pages, AttentionKernels kernels)
    : sizes(sizes_in), limits_(limits) {
  const KvShape shape = shape_of(sizes, num_pages);
  pool_.emplace(shape);
  // NaN wherever nothing was written.
  MOBIUS_CUDA(cudaMemset(pool_->keys(0), 0xff, cuda_kv_bytes(shape)));
  uploader_.emplace(limits, shape, sizes.heads);
  const std::size_t bytes = attention_workspace_bytes(shape, sizes.heads, limits, kernels);
  workspace_memory_ = allocate_device(bytes, "a test");
  MOBIUS_CUDA(cudaMemset(workspace_memory_.get(), 0xff, bytes));
  workspace_ =
      lay_out_attention_workspace(workspace_memory_.get(), shape, sizes.heads, limits, kernels);
  for (std::int32_t i = 0; i < sizes.head_dim / 2; ++i) {
    inverse_frequencies.push_back(
        static_cast<float>(std::pow(500000.0, -2.0 * i / sizes.head_dim)));
  }
  const std::size_t frequency_bytes = inverse_frequencies.size() * sizeof(float);
  frequencies_ = allocate_device(frequency_bytes, "a test");
  MOBIUS_CUDA(cudaMemcpy(frequencies_.get(), inverse_frequencies.data(), frequency_bytes,
                         cudaMemcpyHostToDevice));
  MOBIUS_CUDA(cudaDeviceSynchronize());
  for (PageId page = 0; page < num_pages; ++page) free_.push_back(page);
  std::shuffle(free_.begin(), free_.end(), std::mt19937(7));
}

void AttentionFixture::stop_rotating() {
  std::fill(inverse_frequencies.begin(), inverse_frequencies.end(), 0.0F);
  MOBIUS_CUDA(cudaMemset(frequencies_.get(), 0, inverse_frequencies.size() * sizeof(float)));
  MOBIUS_CUDA(cudaDeviceSynchronize());
}

TestSequence AttentionFixture::make_sequence(std::int32_t tokens, const AttentionPolicy& policy,
                                             std::uint64_t seed) {
  TestSequence sequence;
  sequence.tokens = tokens;
  sequence.policy = policy;
  for (std::int32_t i = 0; i * sizes.page_tokens < tokens; ++i) {
    if (free_.empty()) throw std::runtime_error("the test's pool is too small");
    sequence.pages.push_back(free_.back());
    free_.pop_back();
  }
  std::mt19937_64 random(seed);
  const std::int32_t columns = (sizes.heads + 2 * sizes.kv_heads) * sizes.head_dim;
  sequence.qkv =
      random_values(static_cast<std::size_t>(tokens) * static_cast<std::size_t>(columns), random);
  return sequence;
}

void AttentionFixture::step(std::span<const TestSlice> slices) {
  const auto columns = static_cast<std::size_t>(sizes.heads + 2 * sizes.kv_heads) *
                       static_cast<std::size_t>(sizes.head_dim);
  const std::int64_t q_columns = std::int64_t{sizes.heads} * sizes.head_dim;
  std::vector<SequenceSlice> step_slices;
  std::vector<float> qkv;
  std::vector<std::vector<std::int32_t>> attended(slices.size());
  std::int32_t rows = 0;
  for (const TestSlice& slice : slices) {
    const TestSequence& sequence = *slice.sequence;
    std::vector<std::int32_t>& told = attended[step_slices.size()];
    if (slice.asks) {
      const std::int32_t last = sequence.done + slice.rows - 1;
      told.assign(
          static_cast<std::size_t>(kLayers * sizes.heads * attended_blocks(sequence.policy, last)),
          -1);
    }
    step_slices.push_back(
        {rows, slice.rows, sequence.done, sequence.pages, sequence.policy, 0, told});
    const auto* begin = sequence.qkv.data() + static_cast<std::size_t>(sequence.done) * columns;
    qkv.insert(qkv.end(), begin, begin + static_cast<std::size_t>(slice.rows) * columns);
    rows += slice.rows;
  }
  const std::vector<std::int32_t> tokens(static_cast<std::size_t>(rows), 0);
  uploader_->upload({tokens, step_slices, {}}, stream_);
  DeviceMatrix qkv_matrix(DType::f32, rows, static_cast<std::int64_t>(columns));
  qkv_matrix.set(qkv);
  const DeviceMatrix q(DType::bf16, rows, q_columns);
  const DeviceMatrix out(DType::bf16, rows, q_columns);
  launch_rope_append(q.tensor(), qkv_matrix.tensor(), *pool_, kLayer,
                     static_cast<const float*>(frequencies_.get()), uploader_->host(),
                     uploader_->device(), stream_.get());
  launch_attention(out.tensor(), q.tensor(), *pool_, kLayer, uploader_->host(), uploader_->device(),
                   workspace_, false, stream_.get());
  stream_.synchronize();
  uploader_->tell_blocks();
  for (std::size_t s = 0; s < slices.size(); ++s) {
    if (!slices[s].asks) continue;
    TestSequence& sequence = *slices[s].sequence;
    const auto layer = static_cast<std::ptrdiff_t>(attended[s].size() / kLayers);
    sequence.told[sequence.done + slices[s].rows - 1] = {attended[s].begin() + kLayer * layer,
                                                         attended[s].end()};
  }
  if (!q.margins_intact() || !out.margins_intact()) {
    throw std::runtime_error("written outside of q or the output");
  }
  const std::vector<float> q_values = q.values();
  const std::vector<float> out_values = out.values();
  const auto words = static_cast<std::size_t>(workspace_.selection_words);
  const std::vector<std::byte> selection =
      bytes_of(workspace_.selection,
               static_cast<std::size_t>(rows * sizes.heads) * words * sizeof(std::uint32_t));
  auto row = static_cast<std::ptrdiff_t>(0);
  for (const TestSlice& slice : slices) {
    TestSequence& sequence = *slice.sequence;
    for (std::int32_t i = 0; i < slice.rows; ++i, ++row) {
      sequence.q.insert(sequence.q.end(), q_values.begin() + row * q_columns,
                        q_values.begin() + (row + 1) * q_columns);
      sequence.out.insert(sequence.out.end(), out_values.begin() + row * q_columns,
                          out_values.begin() + (row + 1) * q_columns);
      for (std::int32_t head = 0; head < sizes.heads; ++head) {
        std::vector<std::uint32_t> chosen(words);
        std::memcpy(chosen.data(),
                    selection.data() + static_cast<std::size_t>(row * sizes.heads + head) * words *
                                           sizeof(std::uint32_t),
                    words * sizeof(std::uint32_t));
        sequence.selected.push_back(std::move(chosen));
      }
    }
    sequence.done += slice.rows;
  }
}

void AttentionFixture::run(TestSequence& sequence, std::int32_t chunk) {
  while (sequence.done < sequence.tokens) {
    const TestSlice slice{&sequence, std::min(chunk, sequence.tokens - sequence.done)};
    step(std::span(&slice, 1));
  }
}

std::vector<std::byte> AttentionFixture::bytes_of(const void* memory, std::size_t bytes) const {
  std::vector<std::byte> copy(bytes);
  MOBIUS_CUDA(cudaMemcpy(copy.data(), memory, bytes, cudaMemcpyDeviceToHost));
  return copy;
}

OracleSequence AttentionFixture::gather(const TestSequence& sequence) {
  const auto head = static_cast<std::size_t>(sizes.head_dim);
  const std::size_t width = static_cast<std::size_t>(sizes.kv_heads) * head;
  const std::size_t page_values = width * static_cast<std::size_t>(sizes.page_tokens);
  keys_.assign(static_cast<std::size_t>(sequence.done) * width, 0.0F);
  values_.assign(keys_.size(), 0.0F);
  for (std::int32_t page = 0; page * sizes.page_tokens < sequence.done; ++page) {
    const auto id = static_cast<std::size_t>(sequence.pages[static_cast<std::size_t>(page)]);
    const auto load = [&](const std::uint16_t* base) {
      if (sizes.fp8) {
        const std::size_t bytes = page_values / head * (head + 1);  // a scale byte for each vector
        return unpacked_records(
            bytes_of(reinterpret_cast<const std::byte*>(base) + id * bytes, bytes), sizes.head_dim);
      }
      return unpacked(DType::bf16, bytes_of(base + id * page_values, page_values * 2));
    };
    const std::vector<float> keys = load(pool_->keys(kLayer));
    const std::vector<float> values = load(pool_->values(kLayer));
    for (std::int32_t slot = 0; slot < sizes.page_tokens; ++slot) {
      const std::int32_t token = page * sizes.page_tokens + slot;
      if (token >= sequence.done) break;
      for (std::int32_t g = 0; g < sizes.kv_heads; ++g) {
        const std::size_t from = static_cast<std::size_t>(g * sizes.page_tokens + slot) * head;
        const std::size_t to = static_cast<std::size_t>(token * sizes.kv_heads + g) * head;
        std::copy_n(keys.begin() + static_cast<std::ptrdiff_t>(from), head,
                    keys_.begin() + static_cast<std::ptrdiff_t>(to));
        std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(from), head,
                    values_.begin() + static_cast<std::ptrdiff_t>(to));
      }
    }
  }
  return {sequence.done, sizes.kv_heads, sizes.head_dim, sizes.page_tokens,
          DType::bf16,   keys_,          values_};
}

std::vector<float> AttentionFixture::stored_centroids(const TestSequence& sequence) const {
  const std::size_t width = static_cast<std::size_t>(sizes.kv_heads * sizes.head_dim);
  std::vector<float> result;
  for (std::int32_t end = sizes.centroid_block; end <= sequence.done; end += sizes.centroid_block) {
    const auto page = static_cast<std::size_t>(
        sequence.pages[static_cast<std::size_t>(end / sizes.page_tokens - 1)]);
    const std::vector<float> centroid =
        unpacked(DType::bf16, bytes_of(pool_->centroids(kLayer) + page * width, width * 2));
    result.insert(result.end(), centroid.begin(), centroid.end());
  }
  return result;
}

std::vector<float> AttentionFixture::page_sums(const TestSequence& sequence) const {
  const std::size_t width = static_cast<std::size_t>(sizes.kv_heads * sizes.head_dim);
  std::vector<float> result;
  for (std::int32_t page = 0; page * sizes.page_tokens < sequence.done; ++page) {
    const auto id = static_cast<std::size_t>(sequence.pages[static_cast<std::size_t>(page)]);
    const std::vector<float> sums =
        unpacked(DType::f32, bytes_of(pool_->sums(kLayer) + id * width, width * 4));
    result.insert(result.end(), sums.begin(), sums.end());
  }
  return result;
}

}  // namespace mobius::gpu
