#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace mobius {

/// Two tokens that become one. The pair of lowest rank is merged first, the leftmost of equal ones.
struct BpeMerge {
  std::int32_t left = 0;
  std::int32_t right = 0;
  std::int32_t rank = 0;
  std::int32_t result = 0;
};

/// Byte pair encoding of single pieces of text. Immutable: encode() may be called from any thread.
class Bpe {
 public:
  /// Memory that encode() works in; one per thread, kept between calls.
  class Workspace {
   public:
    Workspace();
    ~Workspace();
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;

   private:
    friend class Bpe;
    struct Buffers;
    std::unique_ptr<Buffers> buffers_;
  };

  /// byte_tokens[b] is the token of byte b. A pair may stand in `merges` only once.
  Bpe(std::span<const std::int32_t, 256> byte_tokens, std::span<const BpeMerge> merges);

  /// Appends the tokens of one piece. Time is O(n log n) for a piece of n bytes.
  void encode(std::string_view piece, Workspace& workspace, std::vector<std::int32_t>& out) const;

 private:
  struct Slot {
    std::uint64_t pair = kNoPair;  // left << 32 | right
    std::int32_t rank = 0;
    std::int32_t result = 0;
  };
  static constexpr std::uint64_t kNoPair = ~std::uint64_t{0};

  const Slot* find(std::int32_t left, std::int32_t right) const;
  void encode_short(std::string_view piece, std::vector<std::int32_t>& out) const;
  void encode_long(std::string_view piece, Workspace::Buffers& buffers,
                   std::vector<std::int32_t>& out) const;

  std::array<std::int32_t, 256> byte_tokens_{};
  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full
  int shift_ = 0;
};

}  // namespace mobius
