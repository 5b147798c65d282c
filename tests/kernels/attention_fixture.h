#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/kv_cache.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/oracle/attention.h"

namespace mobius {

/// Sizes of an attention layer under test.
struct AttentionSizes {
  std::int32_t heads = 4;
  std::int32_t kv_heads = 1;
  std::int32_t head_dim = 64;
  std::int32_t page_tokens = 16;
  std::int32_t centroid_block = 0;
  DType dtype = DType::bf16;
  bool fp8 = false;  ///< the cache's keys and values
};

/// One sequence: what went into the cache, and what came out of attention, row by row.
struct TestSequence {
  std::int32_t tokens = 0;
  AttentionPolicy policy;
  std::vector<PageId> pages;
  std::vector<float> qkv;      ///< [tokens, (Q + 2G) * D], before RoPE
  std::vector<std::byte> q;    ///< [tokens, Q * D] of the KV type, as rope_append wrote it
  std::vector<std::byte> out;  ///< same shape
  std::int32_t done = 0;       ///< tokens in the cache
  /// Under MoBA, of the last row of each step, by position: SequenceSlice::attended of all layers.
  std::map<std::int32_t, std::vector<std::int32_t>> attended;
};

/// Rows of one sequence in a step.
struct TestSlice {
  TestSequence* sequence = nullptr;
  std::int32_t rows = 0;
};

/// A pool of two layers (the second is the one under test) and what it takes to run steps on it.
class AttentionFixture {
 public:
  AttentionFixture(const AttentionSizes& sizes, std::int32_t num_pages, int threads, Isa isa);

  /// A sequence of random normal inputs with pages of its own, in random order.
  TestSequence make_sequence(std::int32_t tokens, const AttentionPolicy& policy,
                             std::uint64_t seed);
  void free_pages(const TestSequence& sequence);
  /// Fills every free page, sums and centroids included, with NaN.
  void poison_free_pages();

  /// rope_append and attention of the next rows of each slice's sequence.
  void step(std::span<const TestSlice> slices) { step(slices, true); }
  /// Only rope_append, for the sequence's next rows: a long context whose own outputs matter not.
  void append(TestSequence& sequence, std::int32_t rows);
  /// The whole sequence alone, `chunk` rows a step.
  void run(TestSequence& sequence, std::int32_t chunk);

  /// Keys and values of the sequence as they lie in the pages, for the oracle.
  OracleSequence gather(const TestSequence& sequence);

  std::vector<float> widen(std::span<const std::byte> elements) const;
  std::int32_t q_columns() const { return sizes.heads * sizes.head_dim; }
  std::size_t element() const { return size_of(sizes.dtype); }

  AttentionSizes sizes;
  CpuKvPool pool;
  ThreadPool threads;
  Isa isa;
  std::vector<float> inverse_frequencies;
  std::vector<PageId> free;

 private:
  void step(std::span<const TestSlice> slices, bool attend);

  std::vector<std::byte> workspace_;
  std::vector<float> keys_;
  std::vector<float> values_;
};

inline constexpr std::int32_t kTestLayer = 1;

inline StepView step_of(std::span<const SequenceSlice> slices) {
  StepView step;
  step.slices = slices;
  return step;
}

}  // namespace mobius
