#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/grammar/automaton.h"
#include "engine/grammar/stack_sets.h"
#include "engine/grammar/token_trie.h"

namespace mobius {

/// What one state of an automaton allows whatever lies below it on the stack. Splitting tokens into
/// these and those that depend on the stack is the idea of XGrammar (Dong et al., "XGrammar:
/// Flexible and Efficient Structured Generation Engine for Large Language Models", 2024).
struct LocalTokens {
  std::vector<std::uint32_t> mask;   ///< tokens allowed, if there are many; else empty
  std::vector<std::int32_t> tokens;  ///< tokens allowed, if there are few
  /// Nodes of the token trie at which the rule can be over. The tokens below them that are not
  /// allowed already depend on what the rule returns to.
  std::vector<std::int32_t> ends;

  friend bool operator==(const LocalTokens&, const LocalTokens&) = default;
  std::size_t bytes() const;
};

/// The LocalTokens of an automaton's states, found out when they are first asked for; equal ones
/// are kept once, and up to `most_bytes` of them. Thread-safe.
class LocalTokenTable {
 public:
  /// Both must outlive this.
  LocalTokenTable(const Automaton& automaton, const TokenTrie& trie, std::size_t most_bytes);

  /// Kept here, or, where there is no room, found out again into `scratch`.
  const LocalTokens& of(GrammarState state, LocalTokens& scratch) const {
    const LocalTokens* known =
        known_[static_cast<std::size_t>(state)].load(std::memory_order_acquire);
    return known != nullptr ? *known : find(state, scratch);
  }

  /// Of what is kept, about.
  std::size_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  const LocalTokens& find(GrammarState state, LocalTokens& scratch) const;

  const Automaton* automaton_;
  const TokenTrie* trie_;
  const std::size_t most_bytes_;
  mutable std::atomic<std::size_t> bytes_ = 0;
  mutable std::vector<std::atomic<const LocalTokens*>> known_;
  mutable std::mutex mutex_;  // of what follows
  mutable std::unordered_multimap<std::size_t, std::unique_ptr<const LocalTokens>>
      owned_;  // by hash
  mutable StackSets sets_;
};

void set_tokens(std::span<std::uint32_t> mask, std::span<const std::int32_t> tokens);

}  // namespace mobius
