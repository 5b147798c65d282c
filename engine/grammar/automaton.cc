#include "engine/grammar/automaton.h"

#include <algorithm>
#include <array>

namespace mobius {

GrammarState Automaton::add_state(bool final) {
  states_.emplace_back();
  states_.back().final = final;
  return static_cast<GrammarState>(states_.size()) - 1;
}

GrammarRule Automaton::add_rule() {
  starts_.push_back(-1);
  return static_cast<GrammarRule>(starts_.size()) - 1;
}

GrammarState Automaton::text(GrammarState from, std::string_view text) {
  for (const char c : text) {
    const GrammarState to = add_state();
    const auto value = static_cast<std::uint8_t>(c);
    byte(from, value, value, to);
    from = to;
  }
  return from;
}

void Automaton::text(GrammarState from, std::string_view text, GrammarState to) {
  const GrammarState before = this->text(from, text.substr(0, text.size() - 1));
  const auto last = static_cast<std::uint8_t>(text.back());
  byte(before, last, last, to);
}

std::vector<bool> Automaton::find_live() const {
  // A state is live if it is final, or an edge leads to a live one; a call's edge also needs a live
  // start of its rule. Worklist over who waits for whom.
  std::vector<std::vector<GrammarState>> waits(states_.size());
  for (std::size_t i = 0; i < states_.size(); ++i) {
    const auto self = static_cast<GrammarState>(i);
    const auto wait_for = [&](GrammarState to) {
      waits[static_cast<std::size_t>(to)].push_back(self);
    };
    for (const ByteEdge& edge : states_[i].bytes) wait_for(edge.to);
    for (const GrammarState to : states_[i].empties) wait_for(to);
    for (const CallEdge& edge : states_[i].calls) {
      wait_for(edge.to);
      if (start(edge.rule) >= 0) wait_for(start(edge.rule));
    }
  }
  std::vector<bool> live(states_.size(), false);
  std::vector<GrammarState> work;
  const auto is_live = [&](GrammarState s) { return s >= 0 && live[static_cast<std::size_t>(s)]; };
  const auto becomes_live = [&](const AutomatonState& s) {
    return s.final ||
           std::ranges::any_of(s.bytes, [&](const ByteEdge& e) { return is_live(e.to); }) ||
           std::ranges::any_of(s.empties, is_live) ||
           std::ranges::any_of(
               s.calls, [&](const CallEdge& e) { return is_live(e.to) && is_live(start(e.rule)); });
  };
  for (std::size_t i = 0; i < states_.size(); ++i) {
    if (!states_[i].final) continue;
    live[i] = true;
    work.push_back(static_cast<GrammarState>(i));
  }
  while (!work.empty()) {
    const GrammarState done = work.back();
    work.pop_back();
    for (const GrammarState waiting : waits[static_cast<std::size_t>(done)]) {
      const auto i = static_cast<std::size_t>(waiting);
      if (live[i] || !becomes_live(states_[i])) continue;
      live[i] = true;
      work.push_back(waiting);
    }
  }
  return live;
}

bool Automaton::finish(GrammarRule root) {
  root_ = root;
  const std::vector<bool> live = find_live();
  const auto dead = [&](GrammarState s) { return s < 0 || !live[static_cast<std::size_t>(s)]; };
  if (dead(start(root))) return false;
  for (AutomatonState& s : states_) {
    std::erase_if(s.bytes, [&](const ByteEdge& e) { return dead(e.to); });
    std::erase_if(s.empties, dead);
    std::erase_if(s.calls, [&](const CallEdge& e) { return dead(e.to) || dead(start(e.rule)); });
  }
  find_classes();
  return true;
}

void Automaton::find_classes() {
  std::array<bool, 257> begins{};
  for (const AutomatonState& s : states_) {
    for (const ByteEdge& edge : s.bytes) {
      begins[edge.low] = true;
      begins[static_cast<std::size_t>(edge.high) + 1] = true;
    }
  }
  byte_of_ = {0};
  for (std::size_t byte = 0; byte < 256; ++byte) {
    if (byte > 0 && begins[byte]) byte_of_.push_back(static_cast<std::uint8_t>(byte));
    class_of_[byte] = static_cast<std::uint8_t>(byte_of_.size() - 1);
  }
  num_classes_ = static_cast<std::int32_t>(byte_of_.size());
}

// States that lead to their rule's end without a byte. Worklist, as above.
std::vector<bool> Automaton::find_nullable() const {
  std::vector<bool> nullable(states_.size());
  const auto is = [&](GrammarState s) { return nullable[static_cast<std::size_t>(s)]; };
  const auto becomes_nullable = [&](const AutomatonState& s) {
    return std::ranges::any_of(s.empties, is) ||
           std::ranges::any_of(s.calls,
                               [&](const CallEdge& e) { return is(start(e.rule)) && is(e.to); });
  };
  std::vector<std::vector<GrammarState>> waits(states_.size());
  std::vector<GrammarState> work;
  for (std::size_t i = 0; i < states_.size(); ++i) {
    const auto state = static_cast<GrammarState>(i);
    const auto wait_for = [&](GrammarState s) {
      waits[static_cast<std::size_t>(s)].push_back(state);
    };
    for (const GrammarState to : states_[i].empties) wait_for(to);
    for (const CallEdge& edge : states_[i].calls) {
      wait_for(start(edge.rule));
      wait_for(edge.to);
    }
    if (!states_[i].final) continue;
    nullable[i] = true;
    work.push_back(state);
  }
  while (!work.empty()) {
    const GrammarState done = work.back();
    work.pop_back();
    for (const GrammarState waiting : waits[static_cast<std::size_t>(done)]) {
      const auto i = static_cast<std::size_t>(waiting);
      if (nullable[i] || !becomes_nullable(states_[i])) continue;
      nullable[i] = true;
      work.push_back(waiting);
    }
  }
  return nullable;
}

GrammarRule Automaton::left_recursive_rule() const {
  const std::vector<bool> nullable = find_nullable();
  // The rules that each rule can begin with; a cycle among them is left recursion. Iterative
  // depth-first search, since chains of rules can be long.
  std::vector<std::vector<GrammarRule>> first(starts_.size());
  std::vector<std::int32_t> seen(states_.size(), -1);
  std::vector<GrammarState> work;
  for (std::size_t r = 0; r < starts_.size(); ++r) {
    if (starts_[r] < 0) continue;
    work.assign(1, starts_[r]);
    while (!work.empty()) {
      const auto i = static_cast<std::size_t>(work.back());
      work.pop_back();
      if (seen[i] == static_cast<std::int32_t>(r)) continue;
      seen[i] = static_cast<std::int32_t>(r);
      for (const GrammarState to : states_[i].empties) work.push_back(to);
      for (const CallEdge& edge : states_[i].calls) {
        first[r].push_back(edge.rule);
        if (nullable[static_cast<std::size_t>(start(edge.rule))]) work.push_back(edge.to);
      }
    }
  }
  enum : char { kNew, kOpen, kDone };
  std::vector<char> mark(starts_.size(), kNew);
  std::vector<std::pair<std::size_t, std::size_t>> path;  // rule, next of its firsts
  for (std::size_t r = 0; r < starts_.size(); ++r) {
    if (mark[r] != kNew) continue;
    path.assign(1, {r, 0});
    mark[r] = kOpen;
    while (!path.empty()) {
      auto& [rule, next] = path.back();
      if (next == first[rule].size()) {
        mark[rule] = kDone;
        path.pop_back();
        continue;
      }
      const auto to = static_cast<std::size_t>(first[rule][next++]);
      if (mark[to] == kOpen) return static_cast<GrammarRule>(to);
      if (mark[to] == kDone) continue;
      mark[to] = kOpen;
      path.emplace_back(to, 0);
    }
  }
  return -1;
}

}  // namespace mobius
