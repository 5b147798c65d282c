#pragma once

#include <atomic>
#include <cstddef>
#include <utility>

namespace mobius {

/// A limit on bytes that are in use at once. Thread-safe; must outlive its shares.
class ByteBudget {
 public:
  explicit ByteBudget(std::size_t limit) : limit_(limit) {}
  ByteBudget(const ByteBudget&) = delete;
  ByteBudget& operator=(const ByteBudget&) = delete;

  std::size_t limit() const { return limit_; }
  std::size_t used() const { return used_.load(); }

  /// What one holder has of it; given back on destruction. Not thread-safe itself.
  class Share {
   public:
    explicit Share(ByteBudget& budget) : budget_(&budget) {}
    Share(Share&& other) noexcept
        : budget_(other.budget_), bytes_(std::exchange(other.bytes_, std::size_t{0})) {}
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;
    Share& operator=(Share&&) = delete;
    ~Share() { resize(0); }

    /// Holds `bytes` from now on. False, and nothing changes, where the limit forbids it; never
    /// when it becomes smaller.
    bool resize(std::size_t bytes) {
      if (bytes <= bytes_) {
        budget_->used_.fetch_sub(bytes_ - bytes);
      } else if (!budget_->take(bytes - bytes_)) {
        return false;
      }
      bytes_ = bytes;
      return true;
    }

   private:
    ByteBudget* budget_;
    std::size_t bytes_ = 0;
  };

 private:
  bool take(std::size_t bytes) {
    std::size_t used = used_.load();
    do {
      if (bytes > limit_ - used) return false;
    } while (!used_.compare_exchange_weak(used, used + bytes));
    return true;
  }

  const std::size_t limit_;
  std::atomic<std::size_t> used_ = 0;
};

}  // namespace mobius
