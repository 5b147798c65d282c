#pragma once

#include <cstddef>
#include <cstdint>

namespace mobius::hopper {

/// Hands out consecutive aligned arrays of a workspace; with a null base it only counts.
class Layout {
 public:
  explicit Layout(void* base) : base_(static_cast<std::byte*>(base)) {}

  template <typename T>
  T* take(std::int64_t count) {
    constexpr std::size_t kAlign = 256;
    T* at = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    bytes_ += (sizeof(T) * static_cast<std::size_t>(count) + kAlign - 1) / kAlign * kAlign;
    return at;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::byte* base_;
  std::size_t bytes_ = 0;
};

}  // namespace mobius::hopper
