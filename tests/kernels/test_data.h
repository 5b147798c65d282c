#pragma once

// Random inputs and guarded outputs for tests of kernels.

#include <gtest/gtest.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "kernels/oracle/ops.h"
#include "kernels/tensor.h"

namespace mobius {

/// The types that activations and weights have.
inline constexpr DType kTypes[] = {DType::bf16, DType::f32};

/// Row blocks of one width, one under the other.
inline Weight weight_of(std::vector<HostTensor> blocks) {
  Weight weight;
  weight.cols = blocks.front().cols;
  for (const HostTensor& block : blocks) weight.rows += block.rows;
  weight.row_blocks = std::move(blocks);
  return weight;
}

/// A matrix in memory of its own with poison around it: NaN inside, so that what is left out shows,
/// and a margin whose change shows a write out of bounds. `misalign` bytes off a 64-byte boundary.
class TestMatrix {
 public:
  TestMatrix(DType dtype, std::int64_t rows, std::int64_t cols, std::size_t misalign = 0)
      : dtype_(dtype), rows_(rows), cols_(cols) {
    const std::size_t bytes = static_cast<std::size_t>(rows * cols) * size_of(dtype);
    memory_.assign(bytes + 2 * kMargin + 64, std::byte{0xFF});  // all ones is a NaN in every type
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data()) + kMargin;
    start_ = kMargin + (64 - address % 64) % 64 + misalign;
  }

  static TestMatrix random(DType dtype, std::int64_t rows, std::int64_t cols, std::mt19937& random,
                           float scale = 1.0F, std::size_t misalign = 0) {
    TestMatrix matrix(dtype, rows, cols, misalign);
    std::normal_distribution<float> normal(0.0F, scale);
    for (std::int64_t i = 0; i < rows * cols; ++i) matrix.set(i, normal(random));
    return matrix;
  }

  void* data() { return memory_.data() + start_; }
  const void* data() const { return memory_.data() + start_; }
  Tensor tensor() { return {data(), dtype_, rows_, cols_}; }
  HostTensor host() const { return {data(), dtype_, rows_, cols_}; }

  void set(std::int64_t i, float value) {
    if (dtype_ == DType::f32) {
      std::memcpy(at(i), &value, sizeof value);
    } else {
      const auto bits = static_cast<std::uint16_t>(
          std::bit_cast<std::uint32_t>(round_to(DType::bf16, value)) >> 16);
      std::memcpy(at(i), &bits, sizeof bits);
    }
  }

  float get(std::int64_t i) const {
    if (dtype_ == DType::f32) {
      float value;
      std::memcpy(&value, at(i), sizeof value);
      return value;
    }
    std::uint16_t bits;
    std::memcpy(&bits, at(i), sizeof bits);
    return std::bit_cast<float>(std::uint32_t{bits} << 16);
  }

  std::vector<float> values() const {
    std::vector<float> out;
    for (std::int64_t i = 0; i < rows_ * cols_; ++i) out.push_back(get(i));
    return out;
  }

  std::vector<std::byte> row_bytes(std::int64_t row) const {
    const auto bytes = static_cast<std::size_t>(cols_) * size_of(dtype_);
    const std::byte* begin = at(row * cols_);
    return {begin, begin + bytes};
  }

  /// True while nothing outside the matrix was written.
  bool margins_intact() const {
    const std::size_t end = start_ + static_cast<std::size_t>(rows_ * cols_) * size_of(dtype_);
    for (std::size_t i = 0; i < memory_.size(); ++i) {
      if ((i < start_ || i >= end) && memory_[i] != std::byte{0xFF}) return false;
    }
    return true;
  }

  /// True while nothing at all was written since construction.
  bool untouched() const {
    for (const std::byte b : memory_) {
      if (b != std::byte{0xFF}) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t kMargin = 256;
  std::byte* at(std::int64_t i) {
    return memory_.data() + start_ + static_cast<std::size_t>(i) * size_of(dtype_);
  }
  const std::byte* at(std::int64_t i) const {
    return memory_.data() + start_ + static_cast<std::size_t>(i) * size_of(dtype_);
  }

  DType dtype_;
  std::int64_t rows_;
  std::int64_t cols_;
  std::size_t start_ = 0;
  std::vector<std::byte> memory_;
};

}  // namespace mobius
