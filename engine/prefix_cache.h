#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/cache_events.h"
#include "engine/kv_pages.h"
#include "kernels/attention.h"

namespace mobius {

/// The attention under which a row's keys and values came about. From the second layer on they
/// depend on it (moba.md, rule 8), so rows of other attention are other content. Made by `of`,
/// which gives settings of equal effect equal values.
struct RowAttention {
  AttentionPolicy policy;
  std::int32_t full_attention_last_layers = 0;

  static RowAttention of(const AttentionPolicy& policy, std::int32_t full_attention_last_layers);
  friend bool operator==(const RowAttention&, const RowAttention&) = default;
};

/// What a full page holds, given the pages before it: the first `split` rows were computed under
/// `first`, the others under `second`.
struct PageContent {
  std::span<const std::int32_t> tokens;  ///< page_tokens of them
  RowAttention first;
  RowAttention second;
  std::int32_t split = 0;

  /// Rows [position, position + tokens.size()) of a sequence whose prompt has `prompt_tokens`.
  static PageContent of(std::span<const std::int32_t> tokens, std::int64_t position,
                        std::int64_t prompt_tokens, const RowAttention& prompt,
                        const RowAttention& generated);
};

/// Finds the pages that hold a sequence's beginning: a tree of full pages, in which a path from the
/// root spells tokens from position 0 on. A page is found only behind all the pages before it, so
/// keys, values, page sums and stored centroids are those that the sequence would compute itself,
/// and blocks begin at the same positions. Lookups are by hash and then compare every token: a
/// collision costs a reuse, never an answer.
///
/// A sequence that holds a page in the tree holds the whole path to it. Hence a page in use has
/// only pages in use above it, and every idle page can be evicted, leaves first. Not thread-safe.
class PrefixCache {
 public:
  using Node = std::int32_t;
  static constexpr Node kRoot = -1;  ///< before the first page
  static constexpr Node kNone = -2;

  /// `pages` must outlive this. `key` makes hashes unpredictable for those who choose prompts.
  PrefixCache(KvPages& pages, std::uint64_t key);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  /// Of a page and all before it: `before` is the hash of the page before, 0 for the first.
  std::uint64_t hash(std::uint64_t before, const PageContent& content) const;

  /// The page with this content behind `parent`, or kNone.
  Node find(Node parent, std::uint64_t hash, const PageContent& content) const;

  /// Keeps `page`, which a list holds, unless there is a page of this content already: then that
  /// one's node is returned and the caller exchanges its page for it. kNone: not possible, because
  /// of a hash collision. The caller holds the pages of `parent` and of all before it.
  Node insert(Node parent, std::uint64_t hash, const PageContent& content, PageId page);

  PageId page(Node node) const { return nodes_[static_cast<std::size_t>(node)].page; }

  /// The path to `node` was used until now.
  void touch(Node node);

  /// Frees up to `count` idle pages: the path that was used longest ago first, its tail before its
  /// head. Returns how many.
  std::int32_t evict(std::int32_t count);

  /// From now on notes what becomes findable and what ceases to be.
  void record_events() { records_ = true; }
  /// What was noted since the last call.
  std::vector<CacheEvent> take_events() { return std::exchange(events_, {}); }

  /// Pages in the tree.
  std::int32_t size() const { return static_cast<std::int32_t>(by_hash_.size()); }

  /// Empty, or one line about the first thing that is wrong. For tests.
  std::string check_invariants() const;

 private:
  struct Entry {
    std::uint64_t hash = 0;
    Node parent = kRoot;
    PageId page = -1;  // -1: the entry is free
    std::int32_t depth = 0;
    std::int32_t children = 0;
    std::int64_t last_used = 0;
    std::vector<std::int32_t> tokens;
    RowAttention first;
    RowAttention second;
    std::int32_t split = 0;
  };
  // Eviction order: used longest ago first, then the deepest.
  struct Leaf {
    std::int64_t last_used;
    std::int32_t minus_depth;
    Node node;
    friend auto operator<=>(const Leaf&, const Leaf&) = default;
  };

  Entry& at(Node node) { return nodes_[static_cast<std::size_t>(node)]; }
  const Entry& at(Node node) const { return nodes_[static_cast<std::size_t>(node)]; }
  Leaf leaf(Node node) const { return {at(node).last_used, -at(node).depth, node}; }
  bool holds(Node node, Node parent, const PageContent& content) const;

  KvPages* pages_;
  std::uint64_t key_;
  std::vector<Entry> nodes_;
  std::vector<Node> unused_;
  std::unordered_map<std::uint64_t, Node> by_hash_;
  std::set<Leaf> leaves_;
  std::int64_t clock_ = 0;  // counts touches
  bool records_ = false;
  std::vector<CacheEvent> events_;
};

}  // namespace mobius
