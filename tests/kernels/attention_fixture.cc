#include "tests/kernels/attention_fixture.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/fp8.h"

namespace mobius {
namespace {

KvShape shape_of(const AttentionSizes& sizes, std::int32_t num_pages) {
  return {2,
          num_pages,
          sizes.page_tokens,
          sizes.kv_heads,
          sizes.head_dim,
          sizes.dtype,
          sizes.centroid_block,
          sizes.fp8};
}

constexpr std::size_t kAlignment = 64;

}  // namespace

AttentionFixture::AttentionFixture(const AttentionSizes& sizes_in, std::int32_t num_pages,
                                   int num_threads, Isa isa_in)
    : sizes(sizes_in), pool(shape_of(sizes_in, num_pages)), threads(num_threads), isa(isa_in) {
  for (std::int32_t i = 0; i < sizes.head_dim / 2; ++i) {
    inverse_frequencies.push_back(
        static_cast<float>(std::pow(500000.0, -2.0 * i / sizes.head_dim)));
  }
  for (PageId page = 0; page < num_pages; ++page) free.push_back(page);
  std::shuffle(free.begin(), free.end(), std::mt19937(7));
}

TestSequence AttentionFixture::make_sequence(std::int32_t tokens, const AttentionPolicy& policy,
                                             std::uint64_t seed) {
  TestSequence sequence;
  sequence.tokens = tokens;
  sequence.policy = policy;
  for (std::int32_t i = 0; i * sizes.page_tokens < tokens; ++i) {
    sequence.pages.push_back(free.back());
    free.pop_back();
  }
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  const std::int32_t columns = (sizes.heads + 2 * sizes.kv_heads) * sizes.head_dim;
  sequence.qkv.resize(static_cast<std::size_t>(tokens) * static_cast<std::size_t>(columns));
  for (float& x : sequence.qkv) x = normal(random);
  const std::size_t bytes =
      static_cast<std::size_t>(tokens) * static_cast<std::size_t>(q_columns()) * element();
  // NaN of either type: rows that a step does not write stay visible.
  sequence.q.assign(bytes, std::byte{0xff});
  sequence.out.assign(bytes, std::byte{0xff});
  return sequence;
}

void AttentionFixture::free_pages(const TestSequence& sequence) {
  free.insert(free.end(), sequence.pages.begin(), sequence.pages.end());
}

void AttentionFixture::poison_free_pages() {
  const KvShape& shape = pool.shape();
  const auto tokens = static_cast<std::size_t>(shape.page_tokens);
  const auto head_dim = static_cast<std::size_t>(shape.head_dim);
  const std::size_t vector_bytes = shape.fp8 ? head_dim + 1 : head_dim * element();
  for (const PageId page : free) {
    for (std::int32_t layer = 0; layer < shape.num_layers; ++layer) {
      for (std::int32_t g = 0; g < shape.kv_heads; ++g) {
        // Keys come first, values and scales right behind.
        std::memset(pool.keys(layer, page, g), 0xff, 2 * tokens * vector_bytes);
        std::fill_n(pool.sum(layer, page, g), shape.head_dim,
                    std::numeric_limits<float>::quiet_NaN());
        if (shape.centroid_block > 0) {
          std::memset(pool.centroid(layer, page, g), 0xff,
                      static_cast<std::size_t>(shape.head_dim) * element());
        }
      }
    }
  }
}

void AttentionFixture::append(TestSequence& sequence, std::int32_t rows) {
  const TestSlice slice{&sequence, rows};
  step(std::span(&slice, 1), false);
}

void AttentionFixture::step(std::span<const TestSlice> slices, bool attend) {
  const std::size_t qkv_columns = static_cast<std::size_t>(sizes.heads + 2 * sizes.kv_heads) *
                                  static_cast<std::size_t>(sizes.head_dim);
  const std::size_t row_bytes = static_cast<std::size_t>(q_columns()) * element();
  std::vector<SequenceSlice> step_slices;
  std::vector<float> qkv;
  std::int32_t rows = 0;
  std::int32_t context = 0;
  for (const TestSlice& slice : slices) {
    TestSequence& sequence = *slice.sequence;
    step_slices.push_back({rows, slice.rows, sequence.done, sequence.pages, sequence.policy, 0});
    if (attend && sequence.policy.mode == AttentionMode::moba) {
      const std::int32_t position = sequence.done + slice.rows - 1;
      std::vector<std::int32_t>& places = sequence.attended[position];
      places.assign(static_cast<std::size_t>(pool.shape().num_layers * sizes.heads *
                                             attended_blocks(sequence.policy, position)),
                    -1);
      step_slices.back().attended = places;
    }
    const auto* begin = sequence.qkv.data() + static_cast<std::size_t>(sequence.done) * qkv_columns;
    qkv.insert(qkv.end(), begin, begin + static_cast<std::size_t>(slice.rows) * qkv_columns);
    rows += slice.rows;
    context = std::max(context, sequence.done + slice.rows);
  }
  const StepView view{{}, step_slices, {}};
  std::vector<std::byte> q(static_cast<std::size_t>(rows) * row_bytes, std::byte{0xff});
  std::vector<std::byte> out(q.size(), std::byte{0xff});
  const Tensor q_tensor{q.data(), sizes.dtype, rows, q_columns()};
  rope_append(q_tensor, {qkv.data(), DType::f32, rows, static_cast<std::int64_t>(qkv_columns)},
              pool, kTestLayer, inverse_frequencies, view, threads);

  if (attend) {
    const std::size_t needed = attention_workspace_bytes(
        pool.shape(), sizes.heads, {rows, static_cast<std::int32_t>(slices.size()), context},
        threads.size());
    // Poisoned too: nothing may be read before it is written.
    workspace_.assign(needed + kAlignment, std::byte{0xff});
    const auto address = reinterpret_cast<std::uintptr_t>(workspace_.data());
    const std::size_t offset = (kAlignment - address % kAlignment) % kAlignment;
    attention({out.data(), sizes.dtype, rows, q_columns()}, q_tensor, pool, kTestLayer, view,
              std::span(workspace_).subspan(offset, needed), threads, isa);
  }

  std::size_t row = 0;
  for (const TestSlice& slice : slices) {
    TestSequence& sequence = *slice.sequence;
    const std::size_t bytes = static_cast<std::size_t>(slice.rows) * row_bytes;
    const std::size_t at = static_cast<std::size_t>(sequence.done) * row_bytes;
    std::memcpy(sequence.q.data() + at, q.data() + row * row_bytes, bytes);
    std::memcpy(sequence.out.data() + at, out.data() + row * row_bytes, bytes);
    sequence.done += slice.rows;
    row += static_cast<std::size_t>(slice.rows);
  }
}

void AttentionFixture::run(TestSequence& sequence, std::int32_t chunk) {
  while (sequence.done < sequence.tokens) {
    const TestSlice slice{&sequence, std::min(chunk, sequence.tokens - sequence.done)};
    step(std::span(&slice, 1));
  }
}

OracleSequence AttentionFixture::gather(const TestSequence& sequence) {
  const std::int32_t dim = sizes.head_dim;
  const std::size_t count =
      static_cast<std::size_t>(sequence.done) * static_cast<std::size_t>(sizes.kv_heads * dim);
  keys_.assign(count, 0.0F);
  values_.assign(count, 0.0F);
  const auto half = [](std::uint32_t cell, bool high) {
    return std::bit_cast<float>(high ? cell & 0xffff0000U : cell << 16);
  };
  std::size_t at = 0;
  for (std::int32_t t = 0; t < sequence.done; ++t) {
    const PageId page = sequence.pages[static_cast<std::size_t>(t / sizes.page_tokens)];
    const std::int32_t slot = t % sizes.page_tokens;
    for (std::int32_t g = 0; g < sizes.kv_heads; ++g) {
      if (sizes.fp8) {
        const std::uint8_t* k = pool.key_codes(kTestLayer, page, g) + slot;
        const std::uint8_t* v = pool.value_codes(kTestLayer, page, g) + slot * dim;
        const float k_scale = kv_scale(pool.key_scales(kTestLayer, page, g)[slot]);
        const float v_scale = kv_scale(pool.value_scales(kTestLayer, page, g)[slot]);
        for (std::int32_t d = 0; d < dim; ++d, ++at) {
          keys_[at] = from_e4m3(k[d * sizes.page_tokens]) * k_scale;
          values_[at] = from_e4m3(v[d]) * v_scale;
        }
        continue;
      }
      const std::uint32_t* k = pool.keys(kTestLayer, page, g);
      const std::uint32_t* v = pool.values(kTestLayer, page, g);
      for (std::int32_t d = 0; d < dim; ++d, ++at) {
        if (sizes.dtype == DType::f32) {
          keys_[at] = std::bit_cast<float>(k[d * sizes.page_tokens + slot]);
          values_[at] = std::bit_cast<float>(v[slot * dim + d]);
        } else {
          keys_[at] = half(k[d / 2 * sizes.page_tokens + slot], d % 2 == 1);
          values_[at] = half(v[slot / 2 * dim + d], slot % 2 == 1);
        }
      }
    }
  }
  return {sequence.done, sizes.kv_heads, dim, sizes.page_tokens, sizes.dtype, keys_, values_};
}

std::vector<float> AttentionFixture::widen(std::span<const std::byte> elements) const {
  std::vector<float> wide(elements.size() / element());
  for (std::size_t i = 0; i < wide.size(); ++i) {
    if (sizes.dtype == DType::f32) {
      std::memcpy(&wide[i], elements.data() + 4 * i, 4);
    } else {
      std::uint16_t bits = 0;
      std::memcpy(&bits, elements.data() + 2 * i, 2);
      wide[i] = std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
    }
  }
  return wide;
}

}  // namespace mobius
