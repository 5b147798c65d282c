#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/backend.h"
#include "kernels/cuda/step.h"

namespace mobius {

/// Bytes that a CudaKvPool of this shape takes. Throws std::runtime_error with one line where the
/// device cannot hold such a cache: dtype bf16, head_dim 32, 64 or 128, page_tokens a multiple of
/// 16, centroid_block 0 or a multiple of page_tokens.
std::size_t cuda_kv_bytes(const KvShape& shape);

/// The paged KV cache on the device. Per layer
///
///   keys, values  [page][kv_head][page_tokens][head_dim] bf16
///   sums          [page][kv_head][head_dim] f32: the page's keys added up
///   centroids     [page][kv_head][head_dim] bf16: of the block of shape.centroid_block tokens that
///                 ends with this page; absent where centroid_block is 0
///
/// Where shape.fp8, keys and values are records of 16 tokens (hopper/moba.h), bytes
/// [page][kv_head][page_tokens / 16][16 * (head_dim + 1)], and the pool has scratch memory beside
/// them, in which prefill makes bf16 of one layer's pages, of one KV head or, where a step reads
/// fewer pages than there are, of more.
///
/// Memory is taken at construction and zero.
class CudaKvPool final : public KvPool {
 public:
  /// Throws std::runtime_error as cuda_kv_bytes does, or when there is no memory.
  explicit CudaKvPool(const KvShape& shape);

  /// Records where shape().fp8.
  std::uint16_t* keys(std::int32_t layer) const { return keys_ + cells(layer); }
  std::uint16_t* values(std::int32_t layer) const { return values_ + cells(layer); }
  float* sums(std::int32_t layer) const { return sums_ + vectors(layer); }
  std::uint16_t* centroids(std::int32_t layer) const {
    return centroids_ == nullptr ? nullptr : centroids_ + vectors(layer);
  }

  /// Null where not shape().fp8.
  void* widened() const { return widened_; }
  std::size_t widened_bytes() const { return widened_bytes_; }

 private:
  std::size_t vectors(std::int32_t layer) const {
    return static_cast<std::size_t>(layer) * static_cast<std::size_t>(shape().num_pages) *
           static_cast<std::size_t>(shape().kv_heads) * static_cast<std::size_t>(shape().head_dim);
  }
  /// In units of 2 bytes.
  std::size_t cells(std::int32_t layer) const {
    return static_cast<std::size_t>(layer) * layer_cells_;
  }

  std::shared_ptr<void> memory_;
  std::size_t layer_cells_ = 0;
  std::size_t widened_bytes_ = 0;
  void* widened_ = nullptr;
  std::uint16_t* keys_ = nullptr;
  std::uint16_t* values_ = nullptr;
  float* sums_ = nullptr;
  std::uint16_t* centroids_ = nullptr;
};

/// Backend::rope_append for the rows of the step, which fit: q_out [R, Q * D] bf16, qkv
/// [R, (Q + 2G) * D] f32, inverse_frequencies [D / 2] f32. Enqueues work.
void launch_rope_append(Tensor q_out, Tensor qkv, CudaKvPool& kv, std::int32_t layer,
                        const float* inverse_frequencies, const HostStep& host,
                        const DeviceStep& step, cudaStream_t stream);

}  // namespace mobius
