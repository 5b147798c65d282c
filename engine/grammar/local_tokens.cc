#include "engine/grammar/local_tokens.h"

#include <utility>

namespace mobius {
namespace {

// A set with more tokens than a mask has words is quicker to copy as a mask.
std::size_t words_of(const TokenTrie& trie) {
  return (static_cast<std::size_t>(trie.vocab_size()) + 31) / 32;
}

constexpr std::size_t kMaxSets = 1U << 14U;

}  // namespace

void set_tokens(std::span<std::uint32_t> mask, std::span<const std::int32_t> tokens) {
  for (const std::int32_t token : tokens) {
    mask[static_cast<std::size_t>(token) / 32] |= 1U << (static_cast<std::uint32_t>(token) % 32);
  }
}

LocalTokenTable::LocalTokenTable(const Automaton& automaton, const TokenTrie& trie)
    : automaton_(&automaton), trie_(&trie), known_(automaton.num_states()), sets_(automaton) {}

const LocalTokens& LocalTokenTable::find(GrammarState state) const {
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
  known.store(local.get(), std::memory_order_release);
  owned_.push_back(std::move(local));
  return *owned_.back();
}

}  // namespace mobius
