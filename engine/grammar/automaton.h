#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace mobius {

using GrammarState = std::int32_t;
using GrammarRule = std::int32_t;

/// Bytes low to high lead to a state.
struct ByteEdge {
  std::uint8_t low = 0;
  std::uint8_t high = 0;
  GrammarState to = 0;
};

/// A whole match of a rule leads to a state.
struct CallEdge {
  GrammarRule rule = 0;
  GrammarState to = 0;
};

struct AutomatonState {
  std::vector<ByteEdge> bytes;
  std::vector<CallEdge> calls;
  std::vector<GrammarState> empties;  ///< states that need no byte to get to
  bool final = false;                 ///< the rule may end here
};

/// A pushdown automaton over bytes: rules, each a nondeterministic automaton whose edges are bytes
/// or calls of rules. Rule 0 is the root. Built once, then only read (from any thread).
class Automaton {
 public:
  GrammarState add_state(bool final = false);
  /// A rule without states yet; give it a start before `finish`.
  GrammarRule add_rule();
  void set_start(GrammarRule rule, GrammarState state) {
    starts_[static_cast<std::size_t>(rule)] = state;
  }
  void set_final(GrammarState state) { at(state).final = true; }

  void byte(GrammarState from, std::uint8_t low, std::uint8_t high, GrammarState to) {
    at(from).bytes.push_back({low, high, to});
  }
  void empty(GrammarState from, GrammarState to) { at(from).empties.push_back(to); }
  void call(GrammarState from, GrammarRule rule, GrammarState to) {
    at(from).calls.push_back({rule, to});
  }
  /// Adds states for the bytes of `text`; returns the last.
  GrammarState text(GrammarState from, std::string_view text);
  /// The same to a given state; `text` has at least one byte.
  void text(GrammarState from, std::string_view text, GrammarState to);

  /// Removes what can never be completed, so that from every state that is reached some bytes lead
  /// to the end. False if that leaves nothing of rule `root`, which becomes rule 0's meaning.
  bool finish(GrammarRule root);
  /// After `finish`: a rule that can call itself before any byte; -1 if there is none.
  GrammarRule left_recursive_rule() const;

  GrammarRule root() const { return root_; }
  GrammarState start(GrammarRule rule) const { return starts_[static_cast<std::size_t>(rule)]; }
  const AutomatonState& state(GrammarState state) const {
    return states_[static_cast<std::size_t>(state)];
  }
  std::size_t num_states() const { return states_.size(); }
  std::size_t num_rules() const { return starts_.size(); }

  /// Bytes that no edge tells apart have one class.
  std::int32_t num_classes() const { return num_classes_; }
  std::int32_t class_of(std::uint8_t byte) const { return class_of_[byte]; }
  /// A byte of the class.
  std::uint8_t byte_of(std::int32_t byte_class) const {
    return byte_of_[static_cast<std::size_t>(byte_class)];
  }

 private:
  AutomatonState& at(GrammarState state) { return states_[static_cast<std::size_t>(state)]; }
  void find_classes();
  std::vector<bool> find_live() const;
  std::vector<bool> find_nullable() const;

  std::vector<AutomatonState> states_;
  std::vector<GrammarState> starts_;
  GrammarRule root_ = 0;
  std::int32_t num_classes_ = 1;
  std::uint8_t class_of_[256] = {};
  std::vector<std::uint8_t> byte_of_;
};

}  // namespace mobius
