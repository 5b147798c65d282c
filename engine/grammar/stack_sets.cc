#include "engine/grammar/stack_sets.h"

#include <algorithm>
#include <array>

#include "engine/grammar/token_trie.h"

namespace mobius {
namespace {

std::uint64_t hash_of(std::span<const StackSets::Entry> entries) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a over words, then spread
  for (const StackSets::Entry& entry : entries) {
    hash = (hash ^ static_cast<std::uint32_t>(entry.state)) * 0x100000001b3ULL;
    hash = (hash ^ static_cast<std::uint32_t>(entry.below)) * 0x100000001b3ULL;
  }
  return hash ^ (hash >> 29U);
}

std::uint64_t pair_of(StackSets::Node a, StackSets::Node b) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(a)) << 32U |
         static_cast<std::uint32_t>(b);
}

}  // namespace

StackSets::StackSets(const Automaton& automaton)
    : automaton_(&automaton), visits_(automaton.num_states(), {0, 0}) {
  const std::array<Entry, 1> end = {Entry{kEnd, 0}};
  bottom_ = intern(end);
}

StackSets::Node StackSets::intern(std::span<const Entry> entries) {
  const std::uint64_t hash = hash_of(entries);
  const auto [first, last] = by_hash_.equal_range(hash);
  for (auto found = first; found != last; ++found) {
    if (std::ranges::equal(this->entries(found->second), entries)) return found->second;
  }
  const auto node = static_cast<Node>(places_.size());
  places_.push_back(
      {static_cast<std::int32_t>(entries_.size()), static_cast<std::int32_t>(entries.size())});
  entries_.insert(entries_.end(), entries.begin(), entries.end());
  first_step_.push_back(-1);
  plain_.push_back(-1);
  by_hash_.emplace(hash, node);
  return node;
}

StackSets::Node StackSets::merge(Node a, Node b) {
  if (a == b) return a;
  if (a > b) std::swap(a, b);
  if (const auto known = merged_.find(pair_of(a, b)); known != merged_.end()) return known->second;
  std::vector<Entry> out;
  std::size_t i = 0;
  std::size_t j = 0;
  // By index: a merge further down adds nodes and so moves the entries.
  while (i < entries(a).size() || j < entries(b).size()) {
    const bool has_a = i < entries(a).size();
    const bool has_b = j < entries(b).size();
    const Entry left = has_a ? entries(a)[i] : Entry{};
    const Entry right = has_b ? entries(b)[j] : Entry{};
    if (has_a && (!has_b || left.state < right.state)) {
      out.push_back(left);
      ++i;
    } else if (has_b && (!has_a || right.state < left.state)) {
      out.push_back(right);
      ++j;
    } else {
      out.push_back({left.state, merge(left.below, right.below)});
      ++i;
      ++j;
    }
  }
  const Node node = intern(out);
  merged_.emplace(pair_of(a, b), node);
  return node;
}

void StackSets::begin() {
  out_.clear();
  more_visits_.clear();
  ++round_;
}

bool StackSets::first_visit(GrammarState state, Node below) {
  auto& [round, known] = visits_[static_cast<std::size_t>(state)];
  if (round != round_) {
    round = round_;
    known = below;
    return true;
  }
  const Entry visit{state, below};
  if (known == below || std::ranges::count(more_visits_, visit) > 0) return false;
  more_visits_.push_back(visit);
  return true;
}

void StackSets::expand(GrammarState state, Node below) {
  work_.assign(1, {state, below});
  while (!work_.empty()) {
    const Entry top = work_.back();
    work_.pop_back();
    if (top.state == kEnd) {
      out_.push_back({kEnd, 0});
      continue;
    }
    if (!first_visit(top.state, top.below)) continue;
    const AutomatonState& from = automaton_->state(top.state);
    if (!from.bytes.empty()) out_.push_back(top);
    for (const GrammarState to : from.empties) work_.push_back({to, top.below});
    if (from.final) {
      for (const Entry& next : entries(top.below)) work_.push_back(next);
    }
    for (const CallEdge& edge : from.calls) {
      const AutomatonState& to = automaton_->state(edge.to);
      // Nothing to come back for: without its own level, repetition does not deepen the stack.
      const bool tail = to.final && to.bytes.empty() && to.calls.empty() && to.empties.empty();
      const std::array<Entry, 1> pushed = {Entry{edge.to, top.below}};
      work_.push_back({automaton_->start(edge.rule), tail ? top.below : intern(pushed)});
    }
  }
}

StackSets::Node StackSets::end() {
  if (out_.empty()) return kDead;
  std::ranges::sort(out_, {}, &Entry::state);
  std::size_t kept = 0;
  for (std::size_t i = 1; i < out_.size(); ++i) {
    if (out_[i].state == out_[kept].state) {
      out_[kept].below = merge(out_[kept].below, out_[i].below);
    } else {
      out_[++kept] = out_[i];
    }
  }
  out_.resize(kept + 1);
  return intern(out_);
}

StackSets::Node StackSets::start() {
  begin();
  expand(automaton_->start(automaton_->root()), bottom_);
  return end();
}

StackSets::Node StackSets::only(GrammarState state) {
  const std::array<Entry, 1> entry = {Entry{state, bottom_}};
  return intern(entry);
}

StackSets::Node StackSets::resume(Node below) {
  if (const auto known = resumed_.find(below); known != resumed_.end()) return known->second;
  begin();
  for (std::size_t i = 0; i < entries(below).size(); ++i) {
    const Entry entry = entries(below)[i];
    expand(entry.state, entry.below);
  }
  const Node front = end();
  resumed_.emplace(below, front);
  return front;
}

StackSets::Node StackSets::compute_step(Node front, std::int32_t byte_class) {
  const std::uint8_t byte = automaton_->byte_of(byte_class);
  begin();
  for (std::size_t i = 0; i < entries(front).size(); ++i) {
    const Entry entry = entries(front)[i];
    if (entry.state == kEnd) continue;
    for (const ByteEdge& edge : automaton_->state(entry.state).bytes) {
      if (edge.low <= byte && byte <= edge.high) expand(edge.to, entry.below);
    }
  }
  const Node next = end();
  auto& at = first_step_[static_cast<std::size_t>(front)];
  if (at < 0) {
    at = static_cast<std::int32_t>(steps_.size());
    steps_.resize(steps_.size() + static_cast<std::size_t>(automaton_->num_classes()), kUnknown);
  }
  steps_[static_cast<std::size_t>(at + byte_class)] = next;
  return next;
}

std::int32_t StackSets::plain_bytes(Node front) {
  // Follows the chain of fronts while all plain bytes lead to one and the same.
  std::vector<Node> chain;
  std::int32_t count = 0;
  for (Node at = front;;) {
    if (plain_[static_cast<std::size_t>(at)] >= 0) {
      count = plain_[static_cast<std::size_t>(at)];
      break;
    }
    Node next = kUnknown;
    std::int32_t last_class = -1;
    for (int byte = 0; byte < 128 && next != kDead; ++byte) {
      const auto value = static_cast<std::uint8_t>(byte);
      const std::int32_t byte_class = automaton_->class_of(value);
      if (!is_plain(value) || byte_class == last_class) continue;
      last_class = byte_class;
      const Node to = step(at, value);
      if (next == kUnknown) next = to;
      if (next != to) next = kDead;
    }
    if (next == kDead || may_end(next)) {
      plain_[static_cast<std::size_t>(at)] = count = 0;
      break;
    }
    if (next == at) {
      plain_[static_cast<std::size_t>(at)] = count = kForever;
      break;
    }
    if (chain.size() >= 512 || std::ranges::count(chain, next) > 0) {
      // Far enough for any token; what is not stored here is found out later.
      count = 1;
      plain_[static_cast<std::size_t>(at)] = count;
      break;
    }
    chain.push_back(at);
    at = next;
  }
  for (auto node = chain.rbegin(); node != chain.rend(); ++node) {
    count = std::min(count + 1, kForever);
    plain_[static_cast<std::size_t>(*node)] = count;
  }
  return plain_[static_cast<std::size_t>(front)];
}

StackSets::Node StackSets::compact(Node front) {
  StackSets fresh(*automaton_);
  std::unordered_map<Node, Node> names = {{bottom_, fresh.bottom_}};
  std::vector<Node> work = {front};
  std::vector<Entry> renamed;
  while (!work.empty()) {
    const Node node = work.back();
    bool ready = true;
    renamed.clear();
    for (const Entry& entry : entries(node)) {
      if (entry.state == kEnd) {
        renamed.push_back(entry);
        continue;
      }
      const auto name = names.find(entry.below);
      if (name == names.end()) {
        work.push_back(entry.below);
        ready = false;
      } else {
        renamed.push_back({entry.state, name->second});
      }
    }
    if (!ready) continue;
    names[node] = fresh.intern(renamed);
    work.pop_back();
  }
  const Node name = names.at(front);
  *this = std::move(fresh);
  return name;
}

}  // namespace mobius
