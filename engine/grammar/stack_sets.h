#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/grammar/automaton.h"

namespace mobius {

/// Sets of stacks of a pushdown automaton, every set stored once. A set is a trie from the top of
/// its stacks down: a node maps the states on top to the sets of what lies below them. However many
/// readings a text has, there are at most as many entries in a node as the automaton has states,
/// and a node for each level of nesting (the idea of a graph-structured stack; Tomita, "Efficient
/// Parsing for Natural Language", 1986).
///
/// A `front` is a node whose top states read bytes, or stand for the end. Not thread-safe; copies
/// are independent. `automaton` must outlive this.
class StackSets {
 public:
  using Node = std::int32_t;
  static constexpr Node kDead = -1;
  /// Stands for the end of everything on top of an empty stack.
  static constexpr GrammarState kEnd = -1;

  struct Entry {
    GrammarState state = 0;
    Node below = 0;
    friend bool operator==(const Entry&, const Entry&) = default;
  };

  explicit StackSets(const Automaton& automaton);

  /// The front before the first byte of the root rule.
  Node start();
  /// The front of one state that reads bytes, on an empty stack.
  Node only(GrammarState state);
  /// The front after a byte; kDead if there is none.
  Node step(Node front, std::uint8_t byte) {
    const std::int32_t byte_class = automaton_->class_of(byte);
    const auto at = first_step_[static_cast<std::size_t>(front)];
    if (at >= 0) {
      const Node known = steps_[static_cast<std::size_t>(at + byte_class)];
      if (known != kUnknown) return known;
    }
    return compute_step(front, byte_class);
  }
  /// The front after what is on top of `below` has ended.
  Node resume(Node below);

  /// Ordered by state, each once; kEnd first.
  std::span<const Entry> entries(Node node) const {
    const Place& place = places_[static_cast<std::size_t>(node)];
    return std::span(entries_).subspan(static_cast<std::size_t>(place.first),
                                       static_cast<std::size_t>(place.count));
  }
  /// The end is among the entries.
  bool may_end(Node front) const { return entries(front).front().state == kEnd; }
  bool must_end(Node front) const { return may_end(front) && entries(front).size() == 1; }

  /// How many bytes at least can follow that are plain (see token_trie.h), whichever they are, with
  /// no end among the fronts on the way; at most kForever.
  std::int32_t plain_bytes(Node front);
  static constexpr std::int32_t kForever = 1 << 20;

  std::size_t size() const { return places_.size(); }
  /// Forgets everything that `front` does not need; returns its new name.
  Node compact(Node front);

 private:
  static constexpr Node kUnknown = -2;
  struct Place {
    std::int32_t first = 0;
    std::int32_t count = 0;
  };

  Node intern(std::span<const Entry> entries);
  Node merge(Node a, Node b);
  Node compute_step(Node front, std::int32_t byte_class);
  /// Adds the entries of all fronts that (state, below) leads to without a byte.
  void expand(GrammarState state, Node below);
  bool first_visit(GrammarState state, Node below);
  void begin();
  Node end();

  const Automaton* automaton_;
  std::vector<Entry> entries_;
  std::vector<Place> places_;
  std::vector<std::int32_t> first_step_;  // by node: into steps_, -1 before the first
  std::vector<Node> steps_;               // by class
  std::vector<std::int32_t> plain_;       // by node; -1: unknown
  std::unordered_multimap<std::uint64_t, Node> by_hash_;
  std::unordered_map<std::uint64_t, Node> merged_;
  std::unordered_map<Node, Node> resumed_;
  Node bottom_ = 0;

  // Scratch of expand.
  std::vector<Entry> out_;
  std::vector<Entry> work_;
  std::vector<std::pair<std::int32_t, Node>> visits_;  // by state: round, below
  std::vector<Entry> more_visits_;                     // further ones of the same round
  std::int32_t round_ = 0;
};

}  // namespace mobius
