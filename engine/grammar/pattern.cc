#include "engine/grammar/pattern.h"

#include <algorithm>
#include <map>

#include "engine/grammar/pattern_parser.h"

namespace mobius {
namespace {

struct NfaState {
  std::vector<std::size_t> empties;
  const CodePoints* set = nullptr;  ///< of the edge to `to`
  std::size_t to = 0;
};

/// Thompson's construction.
class Nfa {
 public:
  explicit Nfa(std::size_t max_states) : max_states_(max_states) {}

  std::size_t add() {
    states.emplace_back();
    return states.size() - 1;
  }
  bool too_large() const { return states.size() > max_states_; }

  /// States for `node` from `from`; returns where they end.
  std::size_t build(const PatternNode& node, std::size_t from) {
    if (too_large()) return from;
    switch (node.kind) {
      case PatternNode::Kind::set: {
        const std::size_t to = add();
        states[from].set = &node.set;
        states[from].to = to;
        // Whoever goes on from `to` may add an edge of its own there; here there is one already.
        const std::size_t after = add();
        states[to].empties.push_back(after);
        return after;
      }
      case PatternNode::Kind::sequence:
        for (const PatternNode& child : node.children) from = build(child, from);
        return from;
      case PatternNode::Kind::choice: {
        const std::size_t end = add();
        for (const PatternNode& child : node.children) {
          const std::size_t begin = add();
          states[from].empties.push_back(begin);
          states[build(child, begin)].empties.push_back(end);
        }
        return end;
      }
      case PatternNode::Kind::repeat: return build_repeat(node, from);
    }
    return from;
  }

  std::vector<NfaState> states;

 private:
  std::size_t build_repeat(const PatternNode& node, std::size_t from) {
    const PatternNode& child = node.children.front();
    for (int i = 0; i < node.least && !too_large(); ++i) from = build(child, from);
    const std::size_t end = add();
    if (node.most < 0) {
      const std::size_t loop = add();
      const std::size_t begin = add();
      states[from].empties.push_back(loop);
      states[loop].empties = {begin, end};
      states[build(child, begin)].empties.push_back(loop);
      return end;
    }
    for (int i = node.least; i < node.most && !too_large(); ++i) {
      const std::size_t begin = add();
      states[from].empties.insert(states[from].empties.end(), {begin, end});
      from = build(child, begin);
    }
    states[from].empties.push_back(end);
    return end;
  }

  std::size_t max_states_;
};

using States = std::vector<std::size_t>;

void close(const Nfa& nfa, States& states) {
  std::vector<bool> seen(nfa.states.size(), false);
  States work = states;
  states.clear();
  while (!work.empty()) {
    const std::size_t at = work.back();
    work.pop_back();
    if (seen[at]) continue;
    seen[at] = true;
    states.push_back(at);
    for (const std::size_t to : nfa.states[at].empties) work.push_back(to);
  }
  std::ranges::sort(states);
}

/// Where the code points that some edge tells apart begin.
std::vector<char32_t> boundaries(const Nfa& nfa, const States& states) {
  std::vector<char32_t> out;
  for (const std::size_t at : states) {
    if (nfa.states[at].set == nullptr) continue;
    for (const auto& [first, last] : *nfa.states[at].set) {
      out.push_back(first);
      out.push_back(last + 1);
    }
  }
  std::ranges::sort(out);
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

bool contains(const CodePoints& set, char32_t code_point) {
  const auto after =
      std::ranges::upper_bound(set, code_point, {}, [](const auto& range) { return range.first; });
  return after != set.begin() && std::prev(after)->second >= code_point;
}

}  // namespace

bool compile_pattern(std::string_view pattern, std::size_t max_states, std::size_t& steps_left,
                     PatternAutomaton& out, std::string& error) {
  PatternNode root;
  if (!parse_pattern(pattern, root, error)) return false;
  const auto too_large = [&] {
    error = "needs an automaton of more than " + std::to_string(max_states) + " states";
    return false;
  };
  Nfa nfa(4 * max_states);
  const std::size_t first = nfa.add();
  const std::size_t last = nfa.build(root, first);
  if (nfa.too_large()) return too_large();

  // The subset construction. Steps are counted too: a small automaton can take many.
  const auto spend = [&](std::size_t steps) { steps_left -= std::min(steps, steps_left); };
  std::map<States, std::size_t> names;
  std::vector<const States*> todo;
  out.states.clear();
  const auto name_of = [&](States states) {
    close(nfa, states);
    spend(nfa.states.size() / 16 + states.size());
    const auto [found, added] = names.try_emplace(std::move(states), out.states.size());
    if (added) {
      out.states.emplace_back();
      out.states.back().final = std::ranges::binary_search(found->first, last);
      todo.push_back(&found->first);
    }
    return found->second;
  };
  name_of({first});
  for (std::size_t i = 0; i < todo.size(); ++i) {
    const States& states = *todo[i];
    const std::vector<char32_t> begins = boundaries(nfa, states);
    std::map<std::size_t, CodePoints> edges;
    for (std::size_t b = 0; b + 1 < begins.size(); ++b) {
      States next;
      for (const std::size_t at : states) {
        const NfaState& from = nfa.states[at];
        if (from.set != nullptr && contains(*from.set, begins[b])) next.push_back(from.to);
      }
      spend(states.size());
      if (next.empty()) continue;
      CodePoints& set = edges[name_of(std::move(next))];
      if (!set.empty() && set.back().second + 1 == begins[b]) {
        set.back().second = begins[b + 1] - 1;
      } else {
        set.emplace_back(begins[b], begins[b + 1] - 1);
      }
      if (out.states.size() > max_states) return too_large();
      if (steps_left == 0) {
        error = "takes too long to compile, together with those before it";
        return false;
      }
    }
    for (auto& [to, set] : edges) out.states[i].edges.push_back({std::move(set), to});
  }
  return true;
}

namespace {

struct Format {
  std::string_view name;
  std::string pattern;
};

// Subsets where the whole is no regular language or nobody means it. Years begin at 0001 and
// seconds end at 59: Python and many others know no more.
const std::vector<Format>& formats() {
  static const std::vector<Format> all = [] {
    const std::string year = "(?:000[1-9]|00[1-9]\\d|0[1-9]\\d\\d|[1-9]\\d{3})";
    const std::string leap_year =
        "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)";
    const std::string date =
        "(?:" + year +
        "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|"
        "02-(?:0[1-9]|1\\d|2[0-8]))|" +
        leap_year + "-02-29)";
    const std::string time =
        "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,6})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)";
    const std::string days = "(?:\\d{1,6}D)";
    const std::string clock =
        "(?:T(?:\\d{1,6}H(?:\\d{1,6}M)?(?:\\d{1,6}S)?|\\d{1,6}M(?:\\d{1,6}S)?|\\d{1,6}S))";
    const std::string dated =
        "(?:\\d{1,6}Y(?:\\d{1,6}M)?" + days + "?|\\d{1,6}M" + days + "?|" + days + ")";
    const std::string label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?";
    const std::string host = label + "(?:\\." + label + "){0,4}";
    const std::string byte = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
    const std::string ipv4 = byte + "(?:\\." + byte + "){3}";
    std::string ipv6 = "[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4}){7}";
    for (int before = 0; before <= 6; ++before) {  // "::" with groups before and after it
      const std::string group = "[0-9a-fA-F]{1,4}";
      ipv6 += "|";
      if (before > 0) ipv6 += group + "(?::" + group + "){" + std::to_string(before - 1) + "}";
      ipv6 += "::";
      if (before == 6) break;
      ipv6 += "(?:" + group + "(?::" + group + "){0," + std::to_string(5 - before) + "})?";
    }
    return std::vector<Format>{
        {"date-time", "^" + date + "T" + time + "$"},
        {"date", "^" + date + "$"},
        {"time", "^" + time + "$"},
        {"duration", "^P(?:" + dated + clock + "?|" + clock + "|\\d{1,6}W)$"},
        {"email", "^[A-Za-z0-9_+-]{1,32}(?:\\.[A-Za-z0-9_+-]{1,15}){0,2}@" + label + "(?:\\." +
                      label + "){1,4}$"},
        {"hostname", "^" + host + "$"},
        {"ipv4", "^" + ipv4 + "$"},
        {"ipv6", "^(?:" + ipv6 + ")$"},
        {"uuid", "^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"},
    };
  }();
  return all;
}

}  // namespace

const char* pattern_of_format(std::string_view format) {
  const auto found = std::ranges::find(formats(), format, &Format::name);
  return found == formats().end() ? nullptr : found->pattern.c_str();
}

std::string known_formats() {
  std::string out;
  for (const Format& format : formats()) {
    if (!out.empty()) out += ", ";
    out += format.name;
  }
  return out;
}

}  // namespace mobius
