#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/kv_cache.h"
#include "kernels/cuda/step.h"
#include "kernels/oracle/attention.h"
#include "tests/gpu/cases.h"

namespace mobius::gpu {

struct AttentionSizes {
  std::int32_t heads = 8;
  std::int32_t kv_heads = 2;
  std::int32_t head_dim = 128;
  std::int32_t page_tokens = 32;
  std::int32_t centroid_block = 0;
  bool fp8 = false;  ///< the cache's keys and values
};

/// One sequence: what went into the cache, and what came out, row by row.
struct TestSequence {
  std::int32_t tokens = 0;
  AttentionPolicy policy;
  std::vector<PageId> pages;
  std::vector<float> qkv;  ///< [tokens, (Q + 2G) * D], before RoPE
  std::vector<float> q;    ///< [tokens, Q * D], as rope_append wrote it
  std::vector<float> out;  ///< same shape
  /// [tokens, Q]: blocks chosen besides the current one, as bits; filled under MoBA.
  std::vector<std::vector<std::uint32_t>> selected;
  /// Of slices that asked: blocks that their last row attends, by its position, [Q][n].
  std::map<std::int32_t, std::vector<std::int32_t>> told;
  std::int32_t done = 0;
};

struct TestSlice {
  TestSequence* sequence = nullptr;
  std::int32_t rows = 0;
  bool asks = false;  ///< for TestSequence::told
};

/// A pool of two layers (the second is under test), and steps on it. Free pages hold NaN.
class AttentionFixture {
 public:
  AttentionFixture(const AttentionSizes& sizes, const StepLimits& limits, std::int32_t num_pages,
                   AttentionKernels kernels);

  /// Queries and keys stay as they come, from now on.
  void stop_rotating();
  TestSequence make_sequence(std::int32_t tokens, const AttentionPolicy& policy,
                             std::uint64_t seed);
  /// rope_append and attention of the next rows of each slice's sequence.
  void step(std::span<const TestSlice> slices);
  /// The whole sequence alone, `chunk` rows a step.
  void run(TestSequence& sequence, std::int32_t chunk);

  /// Whether attention leaves the blocks that it chose in its workspace: the plain kernels do.
  bool shows_selection() const { return workspace_.hopper_bytes == 0; }

  /// What the cache holds of the sequence, for the oracle. Valid until the next call.
  OracleSequence gather(const TestSequence& sequence);
  /// The stored centroids of complete blocks, [blocks, kv_heads, head_dim].
  std::vector<float> stored_centroids(const TestSequence& sequence) const;
  /// Sums of the sequence's pages, [pages, kv_heads, head_dim].
  std::vector<float> page_sums(const TestSequence& sequence) const;

  AttentionSizes sizes;
  std::vector<float> inverse_frequencies;

 private:
  std::vector<std::byte> bytes_of(const void* memory, std::size_t bytes) const;

  CudaStream stream_;
  StepLimits limits_;
  std::optional<CudaKvPool> pool_;
  std::optional<StepUploader> uploader_;
  std::shared_ptr<void> workspace_memory_;
  AttentionWorkspace workspace_;
  std::shared_ptr<void> frequencies_;
  std::vector<PageId> free_;
  std::vector<float> keys_;
  std::vector<float> values_;
};

}  // namespace mobius::gpu
