#include "engine/grammar/local_tokens.h"

#include <utility>

namespace mobius {
namespace {

// A set with more tokens than a mask has words is quicker to copy as a mask.
std::size_t words_of(const TokenTrie& trie) {
  return (static_cast<std::size_t>(trie.vocab_size()) + 31) / 32;
}

constexpr std::size_t kMaxSets = 1U << 14U;

std::size_t hash_of(const LocalTokens& local) {
  std::uint64_t hash = local.mask.size();
  const auto add = [&](auto values) {
    for (const auto value : values) {
      hash = (hash ^ static_cast<std::uint32_t>(value)) * 0x9e3779b97f4a7c15ULL;
      hash ^= hash >> 29U;
    }
    hash += values.size();
  };
  add(std::span(local.mask));
  add(std::span(local.tokens));
  add(std::span(local.ends));
  return hash;
}

}  // namespace

std::size_t LocalTokens::bytes() const {
  return sizeof *this + 4 * (mask.capacity() + tokens.capacity() + ends.capacity());
}

void set_tokens(std::span<std::uint32_t> mask, std::span<const std::int32_t> tokens) {
  for (const std::int32_t token : tokens) {
    mask[static_cast<std::size_t>(token) / 32] |= 1U << (static_cast<std::uint32_t>(token) % 32);
  }
}

LocalTokenTable::LocalTokenTable(const Automaton& automaton, const TokenTrie& trie,
                                 std::size_t most_bytes)
    : automaton_(&automaton),
      trie_(&trie),
      most_bytes_(most_bytes),
      known_(automaton.num_states()),
      sets_(automaton) {}

const LocalTokens& LocalTokenTable::find(GrammarState state, LocalTokens& scratch) const {
  const std::scoped_lock lock(mutex_);
  auto& known = known_[static_cast<std::size_t>(state)];
  if (const LocalTokens* other = known.load(std::memory_order_acquire)) return *other;
  if (sets_.size() > kMaxSets) sets_ = StackSets(*automaton_);
  auto local = std::make_unique<LocalTokens>();
  trie_->walk(
      TokenTrie::kRoot, sets_, sets_.only(state),
      [&](std::span<const std::int32_t> tokens) {
        local->tokens.insert(local->tokens.end(), tokens.begin(), tokens.end());
      },
      [&](std::int32_t node) { local->ends.push_back(node); });
  const std::size_t words = words_of(*trie_);
  if (local->tokens.size() > words) {
    local->mask.resize(words);
    set_tokens(local->mask, local->tokens);
    local->tokens = {};
  }
  local->tokens.shrink_to_fit();
  local->ends.shrink_to_fit();
  // Places in a string far from where it must end allow the same, thousands of them.
  const std::size_t hash = hash_of(*local);
  for (auto [same, end] = owned_.equal_range(hash); same != end; ++same) {
    if (*same->second != *local) continue;
    known.store(same->second.get(), std::memory_order_release);
    return *same->second;
  }
  if (bytes() + local->bytes() > most_bytes_) {
    scratch = std::move(*local);
    return scratch;
  }
  bytes_ += local->bytes();
  known.store(local.get(), std::memory_order_release);
  return *owned_.emplace(hash, std::move(local))->second;
}

}  // namespace mobius
