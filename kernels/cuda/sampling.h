#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kernels/cuda/device.h"
#include "kernels/sampling.h"
#include "kernels/tensor.h"

namespace mobius {

/// Draws tokens from rows of logits on the device by the rules of kernels/sampling.h, and those of
/// the CPU's RowSampler for logits that are not finite and for ids out of range. One thread at a
/// time.
class CudaSampler {
 public:
  static constexpr std::int64_t kMaxVocab = 262144;
  /// Log-probabilities of likeliest tokens that a row may ask for.
  static constexpr std::int32_t kMaxTop = 128;

  /// For up to `max_rows` rows of `vocab` logits. Throws std::runtime_error where the vocabulary is
  /// larger than kMaxVocab.
  CudaSampler(std::int32_t max_rows, std::int64_t vocab);
  static std::size_t device_bytes(std::int32_t max_rows, std::int64_t vocab);

  /// Throws std::invalid_argument where a row has no params, its mask is shorter than the
  /// vocabulary or allows no token, or it asks for more than kMaxTop log-probabilities.
  void check(std::span<const SampleRow> rows, std::int64_t vocab) const;

  /// Puts what the rows say on the device and enqueues their drawing from logits
  /// [rows.size(), vocab] f32, which are overwritten. `rows` have passed `check`. Waits for the
  /// stream only where penalties and masks of all rows together outgrow the staging memory.
  void sample(Tensor logits, std::span<const SampleRow> rows, const CudaStream& stream);

  /// After the stream is done: the results of the last `sample`.
  void collect(std::span<SampledToken> out, std::span<const SampleRow> rows) const;

 private:
  struct Group {
    std::size_t rows = 0;
    std::size_t bytes = 0;
  };
  Group stage(std::span<const SampleRow> rows, std::size_t first);

  std::int32_t max_rows_ = 0;
  std::int64_t vocab_ = 0;
  std::shared_ptr<void> staging_;
  std::shared_ptr<void> results_;
  PinnedBuffer pinned_staging_;
  PinnedBuffer pinned_results_;
  std::vector<std::int32_t> slot_of_;  ///< [vocab] scratch: a token's edit, 0 for none
};

// ---- what the host hands to the kernel --------------------------------------------------------

/// What changes one token's logit before the draw.
struct LogitEdit {
  std::int32_t token = 0;
  float bias = 0.0F;
  std::int32_t generated = 0;  ///< times
  std::int32_t seen = 0;       ///< in prompt or answer: repetition_penalty applies
};

struct DeviceSampleRow {
  float temperature = 0.0F;
  std::int32_t top_k = 0;
  float top_p = 1.0F;
  float min_p = 0.0F;
  float repetition_penalty = 1.0F;
  float presence_penalty = 0.0F;
  float frequency_penalty = 0.0F;
  float uniform = 0.0F;  ///< uniform_draw(seed, index)
  std::int32_t top_logprobs = -1;
  std::int32_t num_edits = 0;
  std::int32_t has_mask = 0;
  std::int32_t padding = 0;
  std::size_t edits_at = 0;  ///< bytes from the staging memory's beginning
  std::size_t mask_at = 0;
};

/// The kernel's answer for a row; entries beyond top_logprobs are not written.
struct DeviceSampledToken {
  std::int32_t token = 0;
  float logprob = 0.0F;
  std::int32_t top_tokens[CudaSampler::kMaxTop];
  float top_logprobs[CudaSampler::kMaxTop];
};

/// `rows` and all they refer to lie in `staging`, `rows` first; the edits are used up.
void launch_sample(DeviceSampledToken* results, float* logits, std::int64_t vocab,
                   std::byte* staging, std::int32_t rows, cudaStream_t stream);

}  // namespace mobius
