#include "kernels/cuda/sampling.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels/cuda/check.h"

namespace mobius {
namespace {

constexpr std::size_t kEditsPerRow = 4096;
constexpr std::size_t kAlignment = 16;

std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

std::size_t mask_bytes(std::int64_t vocab) {
  return aligned(static_cast<std::size_t>((vocab + 31) / 32) * sizeof(std::uint32_t));
}

/// Every row with its mask and some edits, and at least one row with an edit for each token.
std::size_t staging_bytes(std::int32_t max_rows, std::int64_t vocab) {
  const auto rows = static_cast<std::size_t>(max_rows);
  const std::size_t edits = std::max(rows * std::min(kEditsPerRow, static_cast<std::size_t>(vocab)),
                                     static_cast<std::size_t>(vocab)) *
                            sizeof(LogitEdit);
  return aligned(rows * sizeof(DeviceSampleRow)) + rows * mask_bytes(vocab) + edits;
}

bool has_penalty(const SamplingParams& params) {
  return params.repetition_penalty != 1.0F || params.presence_penalty != 0.0F ||
         params.frequency_penalty != 0.0F;
}

}  // namespace

std::size_t CudaSampler::device_bytes(std::int32_t max_rows, std::int64_t vocab) {
  return staging_bytes(max_rows, vocab) +
         static_cast<std::size_t>(max_rows) * sizeof(DeviceSampledToken);
}

CudaSampler::CudaSampler(std::int32_t max_rows, std::int64_t vocab)
    : max_rows_(max_rows), vocab_(vocab), slot_of_(static_cast<std::size_t>(vocab)) {
  if (vocab > kMaxVocab) {
    throw std::runtime_error("the vocabulary has " + std::to_string(vocab) +
                             " tokens, must be at most " + std::to_string(kMaxVocab) +
                             " with CUDA");
  }
  const std::size_t staging = staging_bytes(max_rows, vocab);
  const std::size_t results = static_cast<std::size_t>(max_rows) * sizeof(DeviceSampledToken);
  staging_ = allocate_device(staging, "sampling");
  results_ = allocate_device(results, "sampling");
  pinned_staging_ = PinnedBuffer(staging);
  pinned_results_ = PinnedBuffer(results);
}

void CudaSampler::check(std::span<const SampleRow> rows, std::int64_t vocab) const {
  if (rows.size() > static_cast<std::size_t>(max_rows_) || vocab > vocab_) {
    throw std::invalid_argument("sample: " + std::to_string(rows.size()) + " rows of " +
                                std::to_string(vocab) + " logits, planned for " +
                                std::to_string(max_rows_) + " of " + std::to_string(vocab_));
  }
  for (const SampleRow& row : rows) {
    if (row.params == nullptr) throw std::invalid_argument("sample: a row has no parameters");
    if (row.params->top_logprobs > kMaxTop) {
      throw std::invalid_argument("sample: top_logprobs is " +
                                  std::to_string(row.params->top_logprobs) + ", must be at most " +
                                  std::to_string(kMaxTop));
    }
    if (row.allowed.empty()) continue;
    const auto words = static_cast<std::size_t>((vocab + 31) / 32);
    if (row.allowed.size() < words) {
      throw std::invalid_argument("sample: the mask has " + std::to_string(row.allowed.size()) +
                                  " words for " + std::to_string(vocab) + " tokens");
    }
    bool any = false;
    for (std::size_t word = 0; word < words && !any; ++word) {
      const std::int64_t tokens = std::min<std::int64_t>(32, vocab - 32 * std::int64_t(word));
      const std::uint32_t valid = tokens == 32 ? ~0U : (1U << tokens) - 1;
      any = (row.allowed[word] & valid) != 0;
    }
    if (!any) throw std::invalid_argument("sample: the mask allows no token");
  }
}

CudaSampler::Group CudaSampler::stage(std::span<const SampleRow> rows, std::size_t first) {
  std::byte* base = pinned_staging_.data();
  Group group;
  group.bytes = aligned((rows.size() - first) * sizeof(DeviceSampleRow));
  for (std::size_t i = first; i < rows.size(); ++i) {
    const SampleRow& row = rows[i];
    const SamplingParams& params = *row.params;
    const bool penalised = has_penalty(params);
    const std::size_t most_edits = std::min(
        params.logit_bias.size() + (penalised ? row.prompt.size() + row.generated.size() : 0),
        slot_of_.size());
    const std::size_t needed = most_edits * sizeof(LogitEdit) + mask_bytes(vocab_);
    if (group.rows > 0 && group.bytes + needed > pinned_staging_.bytes()) break;

    DeviceSampleRow out;
    out.temperature = params.temperature;
    out.top_k = params.top_k;
    out.top_p = params.top_p;
    out.min_p = params.min_p;
    out.repetition_penalty = params.repetition_penalty;
    out.presence_penalty = params.presence_penalty;
    out.frequency_penalty = params.frequency_penalty;
    out.uniform = uniform_draw(params.seed, row.generated.size());
    out.top_logprobs = params.top_logprobs;
    out.edits_at = group.bytes;
    auto* edits = reinterpret_cast<LogitEdit*>(base + out.edits_at);
    const auto edit_of = [&](std::int32_t token) -> LogitEdit* {
      if (token < 0 || static_cast<std::size_t>(token) >= slot_of_.size()) return nullptr;
      std::int32_t& slot = slot_of_[static_cast<std::size_t>(token)];
      if (slot == 0) {
        edits[out.num_edits] = {.token = token};
        slot = ++out.num_edits;
      }
      return edits + slot - 1;
    };
    for (const auto& [token, bias] : params.logit_bias) {
      if (LogitEdit* edit = edit_of(token)) edit->bias += bias;
    }
    if (penalised) {
      for (const std::int32_t token : row.prompt) {
        if (LogitEdit* edit = edit_of(token)) edit->seen = 1;
      }
      for (const std::int32_t token : row.generated) {
        if (LogitEdit* edit = edit_of(token)) {
          edit->seen = 1;
          ++edit->generated;
        }
      }
    }
    for (std::int32_t e = 0; e < out.num_edits; ++e) {
      slot_of_[static_cast<std::size_t>(edits[e].token)] = 0;
    }
    group.bytes += aligned(static_cast<std::size_t>(out.num_edits) * sizeof(LogitEdit));
    if (!row.allowed.empty()) {
      out.has_mask = 1;
      out.mask_at = group.bytes;
      const std::size_t words = static_cast<std::size_t>((vocab_ + 31) / 32);
      std::memcpy(base + out.mask_at, row.allowed.data(),
                  std::min(words, row.allowed.size()) * sizeof(std::uint32_t));
      group.bytes += mask_bytes(vocab_);
    }
    std::memcpy(base + group.rows * sizeof(DeviceSampleRow), &out, sizeof out);
    ++group.rows;
  }
  return group;
}

void CudaSampler::sample(Tensor logits, std::span<const SampleRow> rows, const CudaStream& stream) {
  auto* results = static_cast<DeviceSampledToken*>(results_.get());
  auto* values = static_cast<float*>(logits.data);
  for (std::size_t first = 0; first < rows.size();) {
    if (first > 0) stream.synchronize();  // the staging memory is still being read
    const Group group = stage(rows, first);
    MOBIUS_CUDA(cudaMemcpyAsync(staging_.get(), pinned_staging_.data(), group.bytes,
                                cudaMemcpyHostToDevice, stream.get()));
    launch_sample(results + first, values + static_cast<std::int64_t>(first) * logits.cols,
                  logits.cols, static_cast<std::byte*>(staging_.get()),
                  static_cast<std::int32_t>(group.rows), stream.get());
    first += group.rows;
  }
  MOBIUS_CUDA(cudaMemcpyAsync(pinned_results_.data(), results_.get(),
                              rows.size() * sizeof(DeviceSampledToken), cudaMemcpyDeviceToHost,
                              stream.get()));
}

void CudaSampler::collect(std::span<SampledToken> out, std::span<const SampleRow> rows) const {
  const auto* results = reinterpret_cast<const DeviceSampledToken*>(pinned_results_.data());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::int32_t asked = rows[i].params->top_logprobs;
    const auto top = static_cast<std::size_t>(std::min<std::int64_t>(std::max(asked, 0), vocab_));
    out[i].token = results[i].token;
    out[i].logprob = asked >= 0 ? results[i].logprob : 0.0F;
    out[i].top.clear();
    for (std::size_t t = 0; t < top; ++t) {
      out[i].top.push_back({results[i].top_tokens[t], results[i].top_logprobs[t]});
    }
  }
}

}  // namespace mobius
