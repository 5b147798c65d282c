#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kernels/attention.h"
#include "kernels/backend.h"
#include "kernels/cpu/thread_pool.h"

namespace mobius {

/// Bytes that a CpuKvPool of this shape takes. Throws std::runtime_error with one line where the
/// CPU cannot hold such a cache: dtype bf16 or f32, head_dim a multiple of 16 up to 256,
/// page_tokens a multiple of 16, centroid_block 0 or a multiple of page_tokens.
std::size_t kv_bytes(const KvShape& shape);

/// The CPU's paged KV cache. Per layer, page and KV head it keeps
///
///   keys    [D / 2][P][2] bf16, or [D][P] f32: one dimension (pair) of all tokens, then the next
///   values  [P / 2][D][2] bf16, or [P][D] f32: one token (pair), then the next
///   sum     [D] f32: the page's keys added up
///   centroid [D] KV type: of the block of shape.centroid_block tokens that ends with this page
///
/// A cell, two bf16 or one f32, is what one lane of a vector works on; see kernels/cpu/README.md.
/// Where shape.fp8, keys and values are codes instead, with their scales (kernels/fp8.h) behind:
///
///   keys    [D][P] bytes, values [P][D] bytes, scales of keys [P] bytes, of values [P] bytes
///
/// Memory is taken at construction and zero. Calls that write take the pool as non-const.
class CpuKvPool final : public KvPool {
 public:
  /// Throws std::runtime_error as kv_bytes does, or when there is no memory.
  explicit CpuKvPool(const KvShape& shape);
  ~CpuKvPool() override;
  CpuKvPool(const CpuKvPool&) = delete;
  CpuKvPool& operator=(const CpuKvPool&) = delete;

  /// Cells of 4 bytes: a pair of bf16 or one f32. Not where shape().fp8.
  std::uint32_t* keys(std::int32_t layer, PageId page, std::int32_t kv_head) const {
    return reinterpret_cast<std::uint32_t*>(start(layer, page, kv_head));
  }
  std::uint32_t* values(std::int32_t layer, PageId page, std::int32_t kv_head) const {
    return keys(layer, page, kv_head) + elements() * size_of(shape().dtype) / sizeof(std::uint32_t);
  }
  /// Only where shape().fp8.
  std::uint8_t* key_codes(std::int32_t layer, PageId page, std::int32_t kv_head) const {
    return start(layer, page, kv_head);
  }
  std::uint8_t* value_codes(std::int32_t layer, PageId page, std::int32_t kv_head) const {
    return start(layer, page, kv_head) + elements();
  }
  std::uint8_t* key_scales(std::int32_t layer, PageId page, std::int32_t kv_head) const {
    return start(layer, page, kv_head) + 2 * elements();
  }
  std::uint8_t* value_scales(std::int32_t layer, PageId page, std::int32_t kv_head) const {
    return key_scales(layer, page, kv_head) + shape().page_tokens;
  }
  float* sum(std::int32_t layer, PageId page, std::int32_t kv_head) const {
    return sums_ + tile(layer, page, kv_head) * static_cast<std::size_t>(shape().head_dim);
  }
  /// head_dim elements of the KV type. Only where shape().centroid_block > 0.
  std::byte* centroid(std::int32_t layer, PageId page, std::int32_t kv_head) const {
    return centroids_ + tile(layer, page, kv_head) * static_cast<std::size_t>(shape().head_dim) *
                            size_of(shape().dtype);
  }

 private:
  std::size_t tile(std::int32_t layer, PageId page, std::int32_t kv_head) const {
    return (static_cast<std::size_t>(layer) * static_cast<std::size_t>(shape().num_pages) +
            static_cast<std::size_t>(page)) *
               static_cast<std::size_t>(shape().kv_heads) +
           static_cast<std::size_t>(kv_head);
  }

  /// Of the keys of a page and head, and of its values.
  std::size_t elements() const {
    return static_cast<std::size_t>(shape().page_tokens) *
           static_cast<std::size_t>(shape().head_dim);
  }
  std::uint8_t* start(std::int32_t layer, PageId page, std::int32_t kv_head) const {
    return tiles_ + tile(layer, page, kv_head) * tile_bytes_;
  }

  std::size_t tile_bytes_ = 0;  ///< keys and values of a page and head
  void* memory_ = nullptr;
  std::size_t bytes_ = 0;
  std::uint8_t* tiles_ = nullptr;
  float* sums_ = nullptr;
  std::byte* centroids_ = nullptr;
};

/// Backend::rope_append. qkv [R, (Q + 2G) * D] f32, q_out [R, Q * D] of the KV type, rows and pages
/// as the step says. Throws std::invalid_argument, before anything is written, where they do not
/// fit each other.
void rope_append(Tensor q_out, Tensor qkv, CpuKvPool& kv, std::int32_t layer,
                 std::span<const float> inverse_frequencies, const StepView& step,
                 ThreadPool& threads);

/// The centroid of block `block_index` of a sequence with these pages, written to
/// centroid[head_dim] of the KV type: the stored one where `block` is shape.centroid_block, else
/// from page sums. The block must be complete.
void block_centroid(void* centroid, const CpuKvPool& kv, std::int32_t layer, std::int32_t kv_head,
                    std::span<const PageId> pages, std::int32_t block, std::int64_t block_index);

}  // namespace mobius
