#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
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
};

/// The LocalTokens of an automaton's states, found out when they are first asked for. Thread-safe.
class LocalTokenTable {
 public:
  /// Both must outlive this.
  LocalTokenTable(const Automaton& automaton, const TokenTrie& trie);

  const LocalTokens& of(GrammarState state) const {
    const LocalTokens* known =
        known_[static_cast<std::size_t>(state)].load(std::memory_order_acquire);
    return known != nullptr ? *known : find(state);
  }

 private:
  const LocalTokens& find(GrammarState state) const;

  const Automaton* automaton_;
  const TokenTrie* trie_;
  mutable std::vector<std::atomic<const LocalTokens*>> known_;
  mutable std::mutex mutex_;  // of what follows
  mutable std::vector<std::unique_ptr<const LocalTokens>> owned_;
  mutable StackSets sets_;
};

void set_tokens(std::span<std::uint32_t> mask, std::span<const std::int32_t> tokens);

}  // namespace mobius
