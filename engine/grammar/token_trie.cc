#include "engine/grammar/token_trie.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string_view>

namespace mobius {

TokenTrie::TokenTrie(const Tokenizer& tokenizer) : vocab_size_(tokenizer.vocab_size()) {
  constexpr std::size_t kMaxDepth = std::numeric_limits<std::uint16_t>::max();
  for (std::int32_t id = 0; id < vocab_size_; ++id) {
    const std::string_view bytes = tokenizer.bytes(id);
    if (tokenizer.is_special(id) || bytes.empty() || bytes.size() > kMaxDepth) continue;
    tokens_.push_back(id);
    height_ = std::max(height_, bytes.size());
  }
  const auto bytes_of = [&](std::int32_t id) { return tokenizer.bytes(id); };
  std::ranges::stable_sort(tokens_, {}, bytes_of);

  nodes_.emplace_back();
  std::vector<std::int32_t> path = {kRoot};  // by depth
  std::string_view previous;
  const auto close = [&](std::size_t depth) {
    while (path.size() > depth + 1) {
      nodes_[static_cast<std::size_t>(path.back())].skip = size();
      path.pop_back();
    }
  };
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const std::string_view bytes = bytes_of(tokens_[i]);
    const auto common =
        static_cast<std::size_t>(std::ranges::mismatch(previous, bytes).in1 - previous.begin());
    close(common);
    for (std::size_t depth = common; depth < bytes.size(); ++depth) {
      path.push_back(size());
      nodes_.push_back({0, static_cast<std::int32_t>(i), static_cast<std::uint16_t>(depth + 1), 0,
                        static_cast<std::uint8_t>(bytes[depth])});
    }
    previous = bytes;
  }
  close(0);
  nodes_[0].skip = size();

  // From the last node to the first, so that those below are done: each tells the one above it.
  std::vector<std::int32_t> parent(nodes_.size(), -1);
  path.assign(height_ + 1, kRoot);
  for (std::int32_t i = 1; i < size(); ++i) {
    parent[static_cast<std::size_t>(i)] = path[at(i).depth - 1U];
    path[at(i).depth] = i;
  }
  std::vector<std::uint16_t> below(nodes_.size(), 0);
  std::vector<bool> plain(nodes_.size(), true);
  for (std::size_t i = nodes_.size() - 1; i > 0; --i) {
    Node& node = nodes_[i];
    const bool all = plain[i] && is_plain(node.byte);
    const auto height = static_cast<std::uint16_t>(below[i] + 1);
    node.plain_height = all ? height : std::uint16_t{0};
    const auto up = static_cast<std::size_t>(parent[i]);
    below[up] = std::max(below[up], height);
    if (!all) plain[up] = false;
  }
  Node behind;
  behind.first_token = static_cast<std::int32_t>(tokens_.size());
  nodes_.push_back(behind);
}

}  // namespace mobius
