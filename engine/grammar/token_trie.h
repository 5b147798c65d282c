#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/grammar/stack_sets.h"
#include "engine/tokenizer/tokenizer.h"

namespace mobius {

/// ASCII that stands for itself inside a JSON string.
constexpr bool is_plain(std::uint8_t byte) {
  return byte >= 0x20 && byte < 0x7F && byte != '"' && byte != '\\';
}

/// The bytes of all tokens but special ones, as a trie in preorder: the nodes below a node follow
/// it, up to `skip`. Immutable once made.
class TokenTrie {
 public:
  explicit TokenTrie(const Tokenizer& tokenizer);

  static constexpr std::int32_t kRoot = 0;
  std::int32_t size() const { return static_cast<std::int32_t>(nodes_.size()); }
  bool has_children(std::int32_t node) const { return at(node).skip > node + 1; }
  /// One more than the highest token.
  std::int32_t vocab_size() const { return vocab_size_; }

  /// Calls `accept(tokens)` with spans of tokens below `from` whose bytes from there on lead from
  /// `front` to a front that is not dead, and `ends(node)` for each node below `from` with children
  /// at which the end is possible. Every such token is in one span.
  template <typename Accept, typename Ends>
  void walk(std::int32_t from, StackSets& sets, StackSets::Node front, const Accept& accept,
            const Ends& ends) const;

 private:
  struct Node {
    std::int32_t skip = 0;         ///< the next node that is not below this one
    std::int32_t first_token = 0;  ///< into tokens_: its own, then those below
    std::uint16_t depth = 0;       ///< bytes from the root
    std::uint16_t plain_height =
        0;  ///< bytes from this one's on to the deepest; 0: not all of them are plain
    std::uint8_t byte = 0;
  };
  const Node& at(std::int32_t node) const { return nodes_[static_cast<std::size_t>(node)]; }
  std::span<const std::int32_t> tokens(std::int32_t first, std::int32_t last) const {
    return std::span(tokens_).subspan(static_cast<std::size_t>(first),
                                      static_cast<std::size_t>(last - first));
  }

  std::vector<Node> nodes_;  ///< and one behind the last
  std::vector<std::int32_t> tokens_;
  std::size_t height_ = 0;
  std::int32_t vocab_size_ = 0;
};

template <typename Accept, typename Ends>
void TokenTrie::walk(std::int32_t from, StackSets& sets, StackSets::Node front,
                     const Accept& accept, const Ends& ends) const {
  std::vector<StackSets::Node> fronts(height_ + 1);
  fronts[at(from).depth] = front;
  const std::int32_t last = at(from).skip;
  for (std::int32_t i = from + 1; i < last;) {
    const Node& node = at(i);
    const StackSets::Node before = fronts[node.depth - 1U];
    if (node.plain_height > 0 && node.plain_height <= sets.plain_bytes(before)) {
      accept(tokens(node.first_token, at(node.skip).first_token));
      i = node.skip;
      continue;
    }
    const StackSets::Node next = sets.step(before, node.byte);
    if (next == StackSets::kDead) {
      i = node.skip;
      continue;
    }
    fronts[node.depth] = next;
    if (const auto own = tokens(node.first_token, at(i + 1).first_token); !own.empty()) accept(own);
    if (sets.may_end(next) && has_children(i)) ends(i);
    ++i;
  }
}

}  // namespace mobius
