#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/kv_pages.h"
#include "engine/prefix_cache.h"

namespace mobius {

/// The pages of one sequence, and how far they are in the prefix cache: a sequence takes the pages
/// that it finds there, and puts there the ones that it fills. `tokens` are always the sequence's
/// own from position 0 on, at least as many as the call speaks of.
class SequencePages {
 public:
  /// Without a cache nothing is ever found. Both must outlive this. `page_tokens` as in the pool.
  /// `shares` false: the cache only makes room, nothing is found in it or put there.
  SequencePages(KvPages& pages, PrefixCache* cache, std::int32_t page_tokens,
                std::int32_t prompt_tokens, const RowAttention& prompt,
                const RowAttention& generated, bool shares);
  ~SequencePages() { clear(); }
  SequencePages(const SequencePages&) = delete;
  SequencePages& operator=(const SequencePages&) = delete;

  std::span<const PageId> ids() const { return list_.ids(); }
  std::int32_t size() const { return list_.size(); }
  const PageList& list() const { return list_; }

  /// Of the pages that `reuse` would take now, those that are `held`, by page: they cost nothing.
  template <class Held>
  std::int32_t count_shared(std::span<const std::int32_t> tokens, Held&& held) {
    std::int32_t shared = 0;
    follow(tokens, [&](PrefixCache::Node node) { shared += held(cache_->page(node)) ? 1 : 0; });
    return shared;
  }

  /// Takes the pages that follow in the cache, where all the present ones are there. One of
  /// `tokens` always stays to be computed. Returns how many pages.
  std::int32_t reuse(std::span<const std::int32_t> tokens);

  /// The first `computed` tokens are in the pages: those that are full can be found from now on.
  void index(std::span<const std::int32_t> tokens, std::int32_t computed);

  /// Names the page that the next row, at position `computed`, goes to, if it is one that will be
  /// full within `tokens` and can be found then: two sequences with the same name compute the same.
  std::optional<std::uint64_t> next_page(std::span<const std::int32_t> tokens,
                                         std::int32_t computed);

  /// Appends free pages until there are `count`, evicting idle ones. False, and nothing changed, if
  /// that is not enough.
  [[nodiscard]] bool grow_to(std::int32_t count);

  /// Gives all pages back; those in the cache can be found again until they are evicted.
  void clear();

 private:
  PageContent content(std::span<const std::int32_t> tokens, std::int32_t index) const;
  std::uint64_t hash(std::span<const std::int32_t> tokens, std::int32_t index);
  /// Visits the nodes behind the indexed pages that `tokens` find, one token short of all.
  template <class Visit>
  void follow(std::span<const std::int32_t> tokens, Visit&& visit) {
    if (!shares_ || collided_ || indexed_ != list_.size() || tokens.empty()) return;
    const auto most =
        static_cast<std::int32_t>((tokens.size() - 1) / static_cast<std::size_t>(page_tokens_));
    PrefixCache::Node node = node_;
    for (std::int32_t i = indexed_; i < most; ++i) {
      node = cache_->find(node, hash(tokens, i), content(tokens, i));
      if (node == PrefixCache::kNone) return;
      visit(node);
    }
  }

  KvPages* pages_;
  PrefixCache* cache_;
  bool shares_;
  std::int32_t page_tokens_;
  std::int32_t prompt_tokens_;
  RowAttention prompt_, generated_;
  PageList list_;
  PrefixCache::Node node_ = PrefixCache::kRoot;  // of the last page that is in the cache
  std::int32_t indexed_ = 0;                     // how many are: the first ones
  bool collided_ = false;                        // no more of them can be
  std::vector<std::uint64_t> hashes_;            // by page, as far as they were needed
};

}  // namespace mobius
