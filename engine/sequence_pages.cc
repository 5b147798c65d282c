#include "engine/sequence_pages.h"

namespace mobius {

SequencePages::SequencePages(KvPages& pages, PrefixCache* cache, std::int32_t page_tokens,
                             std::int32_t prompt_tokens, const RowAttention& prompt,
                             const RowAttention& generated, bool shares)
    : pages_(&pages),
      cache_(cache),
      shares_(shares && cache != nullptr),
      page_tokens_(page_tokens),
      prompt_tokens_(prompt_tokens),
      prompt_(prompt),
      generated_(generated),
      list_(pages) {}

PageContent SequencePages::content(std::span<const std::int32_t> tokens, std::int32_t index) const {
  const std::int64_t position = std::int64_t{index} * page_tokens_;
  return PageContent::of(
      tokens.subspan(static_cast<std::size_t>(position), static_cast<std::size_t>(page_tokens_)),
      position, prompt_tokens_, prompt_, generated_);
}

std::uint64_t SequencePages::hash(std::span<const std::int32_t> tokens, std::int32_t index) {
  while (hashes_.size() <= static_cast<std::size_t>(index)) {
    const std::uint64_t before = hashes_.empty() ? 0 : hashes_.back();
    hashes_.push_back(
        cache_->hash(before, content(tokens, static_cast<std::int32_t>(hashes_.size()))));
  }
  return hashes_[static_cast<std::size_t>(index)];
}

std::int32_t SequencePages::reuse(std::span<const std::int32_t> tokens) {
  const std::int32_t before = indexed_;
  follow(tokens, [&](PrefixCache::Node node) {
    list_.share(cache_->page(node));
    node_ = node;
    ++indexed_;
  });
  return indexed_ - before;
}

void SequencePages::index(std::span<const std::int32_t> tokens, std::int32_t computed) {
  if (!shares_) return;
  while (!collided_ && (std::int64_t{indexed_} + 1) * page_tokens_ <= computed) {
    const PageId own = ids()[static_cast<std::size_t>(indexed_)];
    const PrefixCache::Node node =
        cache_->insert(node_, hash(tokens, indexed_), content(tokens, indexed_), own);
    if (node == PrefixCache::kNone) {
      collided_ = true;
      return;
    }
    // Another sequence was faster: one copy is enough, and whoever holds a page in the tree holds
    // all before it.
    if (cache_->page(node) != own) list_.exchange(indexed_, cache_->page(node));
    node_ = node;
    ++indexed_;
  }
}

std::optional<std::uint64_t> SequencePages::next_page(std::span<const std::int32_t> tokens,
                                                      std::int32_t computed) {
  const std::int32_t index = computed / page_tokens_;
  if (!shares_ || collided_ || index != indexed_) return {};
  if ((std::size_t(index) + 1) * static_cast<std::size_t>(page_tokens_) > tokens.size()) return {};
  return hash(tokens, index);
}

bool SequencePages::grow_to(std::int32_t count) {
  const std::int32_t missing = count - size() - pages_->available();
  if (missing > 0) {
    if (missing > pages_->idle()) return false;
    cache_->evict(missing);
  }
  return list_.grow_to(count);
}

void SequencePages::clear() {
  if (list_.size() == 0) return;
  if (cache_ != nullptr) cache_->touch(node_);
  list_.clear();
  node_ = PrefixCache::kRoot;
  indexed_ = 0;
  collided_ = false;
}

}  // namespace mobius
