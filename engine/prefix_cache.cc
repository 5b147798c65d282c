#include "engine/prefix_cache.h"

#include <algorithm>
#include <bit>
#include <cassert>

#include "engine/mix.h"

namespace mobius {
namespace {

struct Hash {
  std::uint64_t state;
  void add(std::int64_t word) {
    state = std::rotl((state ^ static_cast<std::uint64_t>(word)) * 0x9e3779b97f4a7c15ULL, 29);
  }
  void add(const RowAttention& attention) {
    add(static_cast<std::int64_t>(attention.policy.mode));
    add(attention.policy.block);
    add(attention.policy.top_k);
    add(attention.full_attention_last_layers);
  }
};

}  // namespace

RowAttention RowAttention::of(const AttentionPolicy& policy,
                              std::int32_t full_attention_last_layers) {
  if (policy.mode == AttentionMode::full) return {AttentionPolicy::full(), 0};
  return {policy, full_attention_last_layers};
}

PageContent PageContent::of(std::span<const std::int32_t> tokens, std::int64_t position,
                            std::int64_t prompt_tokens, const RowAttention& prompt,
                            const RowAttention& generated) {
  const auto count = static_cast<std::int64_t>(tokens.size());
  const auto split =
      static_cast<std::int32_t>(std::clamp<std::int64_t>(prompt_tokens - position, 0, count));
  // One attention all through has one spelling.
  if (prompt == generated || split == count) {
    return {tokens, prompt, prompt, static_cast<std::int32_t>(count)};
  }
  if (split == 0) return {tokens, generated, generated, static_cast<std::int32_t>(count)};
  return {tokens, prompt, generated, split};
}

PrefixCache::PrefixCache(KvPages& pages, std::uint64_t key) : pages_(&pages), key_(mix(key + 1)) {
  // No step allocates an entry: there is at most one for each page.
  nodes_.reserve(static_cast<std::size_t>(pages.total()));
  unused_.reserve(static_cast<std::size_t>(pages.total()));
  by_hash_.reserve(static_cast<std::size_t>(pages.total()));
}

PrefixCache::~PrefixCache() {
  for (const Entry& entry : nodes_) {
    if (entry.page >= 0) pages_->unkeep(entry.page);
  }
}

std::uint64_t PrefixCache::hash(std::uint64_t before, const PageContent& content) const {
  Hash hash{key_ ^ before};
  for (const std::int32_t token : content.tokens) hash.add(token);
  hash.add(content.first);
  hash.add(content.second);
  hash.add(content.split);
  return mix(hash.state);
}

bool PrefixCache::holds(Node node, Node parent, const PageContent& content) const {
  const Entry& entry = at(node);
  return entry.parent == parent && entry.split == content.split && entry.first == content.first &&
         entry.second == content.second && std::ranges::equal(entry.tokens, content.tokens);
}

PrefixCache::Node PrefixCache::find(Node parent, std::uint64_t hash,
                                    const PageContent& content) const {
  const auto found = by_hash_.find(hash);
  return found != by_hash_.end() && holds(found->second, parent, content) ? found->second : kNone;
}

PrefixCache::Node PrefixCache::insert(Node parent, std::uint64_t hash, const PageContent& content,
                                      PageId page) {
  const auto found = by_hash_.find(hash);
  if (found != by_hash_.end()) {
    return holds(found->second, parent, content) ? found->second : kNone;
  }
  assert(parent == kRoot || pages_->count(this->page(parent)) > 0);
  if (unused_.empty()) {
    unused_.push_back(static_cast<Node>(nodes_.size()));
    nodes_.emplace_back();
  }
  const Node node = unused_.back();
  Entry& entry = at(node);
  entry.hash = hash;
  entry.parent = parent;
  entry.depth = parent == kRoot ? 1 : at(parent).depth + 1;
  entry.children = 0;
  entry.last_used = parent == kRoot ? clock_ : at(parent).last_used;
  entry.tokens.assign(content.tokens.begin(), content.tokens.end());
  entry.first = content.first;
  entry.second = content.second;
  entry.split = content.split;
  by_hash_.emplace(hash, node);
  leaves_.insert(leaf(node));
  unused_.pop_back();
  entry.page = page;
  pages_->keep(page);
  if (parent != kRoot && at(parent).children++ == 0) leaves_.erase(leaf(parent));
  if (records_) {
    PageStored stored{hash, {}, entry.tokens};
    if (parent != kRoot) stored.parent = at(parent).hash;
    events_.emplace_back(std::move(stored));
  }
  return node;
}

void PrefixCache::touch(Node node) {
  if (node == kRoot) return;
  ++clock_;
  const bool is_leaf = at(node).children == 0;
  if (is_leaf) leaves_.erase(leaf(node));
  for (Node i = node; i != kRoot; i = at(i).parent) at(i).last_used = clock_;
  if (is_leaf) leaves_.insert(leaf(node));
}

std::int32_t PrefixCache::evict(std::int32_t count) {
  std::int32_t freed = 0;
  // A leaf in use ends a path of a running sequence, so few are passed over.
  for (auto next = leaves_.begin(); next != leaves_.end() && freed < count;) {
    const Node node = next->node;
    Entry& entry = at(node);
    if (pages_->count(entry.page) > 0) {
      ++next;
      continue;
    }
    next = leaves_.erase(next);
    by_hash_.erase(entry.hash);
    if (records_) events_.emplace_back(PageRemoved{entry.hash});
    pages_->unkeep(entry.page);
    entry.page = -1;
    entry.tokens.clear();
    unused_.push_back(node);
    ++freed;
    if (entry.parent != kRoot && --at(entry.parent).children == 0) {
      const auto parent = leaves_.insert(leaf(entry.parent)).first;
      if (next == leaves_.end() || *parent < *next) next = parent;
    }
  }
  return freed;
}

std::string PrefixCache::check_invariants() const {
  std::vector<std::int32_t> children(nodes_.size(), 0);
  std::int32_t size = 0;
  for (Node node = 0; node < static_cast<Node>(nodes_.size()); ++node) {
    const Entry& entry = at(node);
    if (entry.page < 0) continue;
    ++size;
    const std::string name = "cached page " + std::to_string(entry.page);
    if (!pages_->kept(entry.page)) return name + " is not kept";
    const auto found = by_hash_.find(entry.hash);
    if (found == by_hash_.end() || found->second != node) return name + " cannot be found";
    if (entry.parent == kRoot) {
      if (entry.depth != 1) return name + " has depth " + std::to_string(entry.depth);
      continue;
    }
    const Entry& parent = at(entry.parent);
    if (parent.page < 0) return name + " lost its parent";
    ++children[static_cast<std::size_t>(entry.parent)];
    if (entry.depth != parent.depth + 1) return name + " has depth " + std::to_string(entry.depth);
    if (entry.last_used > parent.last_used) return name + " was used after its parent";
    if (pages_->count(entry.page) > pages_->count(parent.page)) {
      return name + " has holders that its parent has not";
    }
  }
  if (size != this->size()) return "the tree has pages that cannot be found";
  std::int32_t kept = 0;
  for (PageId page = 0; page < pages_->total(); ++page) kept += pages_->kept(page) ? 1 : 0;
  if (kept != size)
    return std::to_string(kept) + " pages are kept for a tree of " + std::to_string(size);
  std::size_t leaves = 0;
  for (Node node = 0; node < static_cast<Node>(nodes_.size()); ++node) {
    const Entry& entry = at(node);
    if (entry.page < 0) continue;
    const std::int32_t own = children[static_cast<std::size_t>(node)];
    if (own != entry.children) return "a cached page miscounts its children";
    if ((own == 0) != leaves_.contains(leaf(node))) return "a leaf is missing or none";
    if (own == 0) ++leaves;
  }
  if (leaves != leaves_.size()) return "there are leaves without a page";
  return {};
}

}  // namespace mobius
