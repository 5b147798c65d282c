#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "kernels/tensor.h"

namespace mobius {

/// Of the current device.
std::int32_t multiprocessors();

/// Device memory, freed with the last copy. Throws std::runtime_error "no memory for <purpose>:
/// ..." where the device has too little. 256-byte aligned or better.
std::shared_ptr<void> allocate_device(std::size_t bytes, std::string_view purpose);

/// Page-locked host memory, which the device copies from and to without a detour.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(std::size_t bytes);

  std::byte* data() const { return static_cast<std::byte*>(memory_.get()); }
  std::size_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<void> memory_;
  std::size_t bytes_ = 0;
};

class CudaStream {
 public:
  CudaStream();
  ~CudaStream();
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  cudaStream_t get() const { return stream_; }
  void synchronize() const;

 private:
  cudaStream_t stream_ = nullptr;
};

class CudaEvent {
 public:
  CudaEvent();
  ~CudaEvent();
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;
  cudaEvent_t get() const { return event_; }
  void record(const CudaStream& stream);
  void synchronize() const;

 private:
  cudaEvent_t event_ = nullptr;
};

/// Hands out pieces of large allocations, because a device allocation of its own is rounded up to
/// 2 MiB. Pieces keep their slab alive.
class SlabAllocator {
 public:
  std::shared_ptr<void> allocate(std::size_t bytes, std::string_view purpose);

 private:
  std::shared_ptr<void> slab_;
  std::size_t used_ = 0;
};

/// Copies host matrices to the device through two pinned buffers: while one is on the bus the other
/// is filled. Conversions happen on the device, from a staging buffer. One thread at a time.
class Uploader {
 public:
  explicit Uploader(const CudaStream& stream);

  /// to[count] of `to_type` = from[count] of `from_type`. f32, bf16 and f16 into f32 and bf16.
  /// The host memory may be reused on return; the device's is ready for later work in the stream.
  void upload(void* to, DType to_type, const void* from, DType from_type, std::int64_t count);

  /// The same for rows that are quantised on the way: codes[rows, cols] and scales[rows] as in
  /// `Fp8Weight`. A row must fit into 32 MiB.
  void quantise(void* codes, float* scales, const void* from, DType from_type, std::int64_t rows,
                std::int64_t cols);

 private:
  static constexpr std::size_t kChunkBytes = std::size_t{32} << 20;

  /// Fills the pinned buffer whose turn it is, once it is free, and returns which that is.
  int fill(const void* from, std::size_t bytes);
  /// Enqueues the copy of a filled buffer to its staging buffer.
  const void* stage(int buffer, std::size_t bytes);

  const CudaStream& stream_;
  PinnedBuffer pinned_[2];
  std::shared_ptr<void> staging_[2];
  CudaEvent copied_[2];
  int next_ = 0;
};

}  // namespace mobius
