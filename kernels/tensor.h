#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace mobius {

/// Element types that weights, activations and the KV cache may have; e4m3, with scales, for
/// weights and the KV cache (fp8.h).
enum class DType : std::uint8_t { f32, bf16, f16, e4m3 };

constexpr std::size_t size_of(DType dtype) {
  return dtype == DType::f32 ? 4 : dtype == DType::e4m3 ? 1 : 2;
}

constexpr std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::f16: return "f16";
    case DType::e4m3: return "e4m3";
  }
  return "unknown";
}

/// A contiguous row-major matrix of shape [rows, cols] in the backend's memory. Owns nothing: the
/// Buffer it points into must outlive it. `data` may be a device address; only the backend that
/// allocated it may dereference it.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;

  std::size_t bytes() const { return static_cast<std::size_t>(rows * cols) * size_of(dtype); }

  /// The first `count` rows, count <= rows.
  Tensor head(std::int64_t count) const { return {data, dtype, count, cols}; }
};

/// A read-only row-major matrix of shape [rows, cols] in host memory, usually inside a mapped file.
/// A vector is a matrix of one row.
struct HostTensor {
  const void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;

  std::size_t bytes() const { return static_cast<std::size_t>(rows * cols) * size_of(dtype); }
};

}  // namespace mobius
