#include "engine/grammar/schema_rules.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <tuple>
#include <utility>

#include "engine/tokenizer/utf8.h"

namespace mobius {
namespace {

/// A quote and a string without escapes and its closing quote, that is none of `names`.
void add_other_name(Automaton& a, std::span<const PropertyRule> names, GrammarState from,
                    GrammarState to) {
  struct Node {
    std::map<char32_t, std::size_t> next;
    bool name = false;
  };
  std::vector<Node> trie(1);
  for (const PropertyRule& property : names) {
    std::size_t at = 0;
    for (std::string_view rest = property.name; !rest.empty();) {
      const Utf8Step step = utf8_step(rest);
      rest.remove_prefix(step.length);
      const auto [found, added] = trie[at].next.try_emplace(step.code_point, trie.size());
      at = found->second;
      if (added) trie.emplace_back();
    }
    trie[at].name = true;
  }
  const GrammarState first = a.text(from, "\"");
  std::vector<GrammarState> states = {first};
  while (states.size() < trie.size()) states.push_back(a.add_state());
  const GrammarState free = a.add_state();
  // Names that need escapes are never among the others, which have none.
  const CodePoints bare = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x10FFFF}};
  const auto within = [&](char32_t low, char32_t high, const CodePoints& set) {
    CodePoints out;
    for (const auto& [begin, end] : set) {
      if (std::max(begin, low) <= std::min(end, high)) {
        out.emplace_back(std::max(begin, low), std::min(end, high));
      }
    }
    return out;
  };
  add_string_code_point(a, free, bare, free);
  a.byte(free, '"', '"', to);
  for (std::size_t i = 0; i < trie.size(); ++i) {
    if (!trie[i].name) a.byte(states[i], '"', '"', to);
    char32_t begin = 0;
    for (const auto& [code_point, next] : trie[i].next) {
      if (code_point > begin) {
        add_string_code_point(a, states[i], within(begin, code_point - 1, bare), free);
      }
      add_string_code_point(a, states[i], within(code_point, code_point, bare), states[next]);
      begin = code_point + 1;
    }
    add_string_code_point(a, states[i], within(begin, 0x10FFFF, bare), free);
  }
}

}  // namespace

GrammarRule add_texts(Automaton& a, std::vector<std::string> texts) {
  const GrammarRule rule = a.add_rule();
  const GrammarState start = a.add_state();
  a.set_start(rule, start);
  std::ranges::sort(texts);
  std::vector<GrammarState> path = {start};  // of the text before
  std::string_view previous;
  for (const std::string& text : texts) {
    const auto common =
        static_cast<std::size_t>(std::ranges::mismatch(previous, text).in1 - previous.begin());
    path.resize(common + 1);
    for (std::size_t i = common; i < text.size(); ++i) {
      path.push_back(a.text(path.back(), std::string_view(text).substr(i, 1)));
    }
    a.set_final(path.back());
    previous = text;
  }
  return rule;
}

GrammarRule add_choice(Automaton& a, std::span<const GrammarRule> rules) {
  const GrammarRule rule = a.add_rule();
  const GrammarState start = a.add_state();
  const GrammarState end = a.add_state(true);
  a.set_start(rule, start);
  for (const GrammarRule each : rules) a.call(start, each, end);
  return rule;
}

GrammarRule add_string(Automaton& a, const JsonRules& rules, std::size_t least,
                       std::optional<std::size_t> most, const PatternAutomaton* pattern) {
  if (pattern == nullptr && least == 0 && !most) return rules.string;
  const GrammarRule rule = a.add_rule();
  const GrammarState start = a.add_state();
  a.set_start(rule, start);
  const GrammarState first = a.text(start, "\"");
  const GrammarState end = a.add_state(true);
  if (pattern == nullptr) {
    GrammarState at = first;
    for (std::size_t count = 0;; ++count) {
      if (count >= least) a.byte(at, '"', '"', end);
      if (most ? count == *most : count == least) {
        if (!most) add_string_char(a, rules, at, at);
        return rule;
      }
      const GrammarState next = a.add_state();
      add_string_char(a, rules, at, next);
      at = next;
    }
  }
  // The pattern's states, each as often as characters before it make a difference.
  const std::size_t last = most ? *most : least;
  std::map<std::pair<std::size_t, std::size_t>, GrammarState> names = {{{0, 0}, first}};
  std::vector<std::pair<std::size_t, std::size_t>> todo = {{0, 0}};
  for (std::size_t i = 0; i < todo.size(); ++i) {
    const auto [state, count] = todo[i];
    const GrammarState from = names.at(todo[i]);
    if (count >= least && pattern->states[state].final) a.byte(from, '"', '"', end);
    if (most && count == *most) continue;
    for (const PatternAutomaton::Edge& edge : pattern->states[state].edges) {
      const std::pair key(edge.to, std::min(count + 1, last));
      const auto [found, added] = names.try_emplace(key, 0);
      if (added) {
        found->second = a.add_state();
        todo.push_back(key);
      }
      add_string_code_point(a, from, edge.set, found->second);
    }
  }
  return rule;
}

GrammarRule add_object(Automaton& a, const JsonRules& rules,
                       std::span<const PropertyRule> properties,
                       std::optional<GrammarRule> others) {
  const GrammarRule rule = a.add_rule();
  const GrammarState start = a.add_state();
  a.set_start(rule, start);
  const GrammarState end = a.add_state(true);
  const GrammarState open = a.text(start, "{");
  const std::size_t count = properties.size();
  // choose[i]: the next property may be the i-th, or a later one where those between may be left
  // out; choose[count]: one of the others. done[i]: properties before the i-th are dealt with.
  std::vector<GrammarState> choose(count + 1);
  std::vector<GrammarState> done(count + 1);
  for (std::size_t i = 0; i <= count; ++i) {
    choose[i] = a.add_state();
    done[i] = a.add_state();
  }
  a.call(open, rules.space, choose[0]);
  const auto value = [&](GrammarState from, GrammarRule of, GrammarState to) {
    const GrammarState at = a.add_state();
    a.call(a.text(from, ":"), rules.space, at);
    a.call(at, of, to);
  };
  bool any_required = false;
  for (std::size_t i = 0; i < count; ++i) {
    const PropertyRule& property = properties[i];
    value(a.text(choose[i], json_string(property.name)), property.value, done[i + 1]);
    if (!property.required) a.empty(choose[i], choose[i + 1]);
    any_required = any_required || property.required;
  }
  if (others) {
    const GrammarState named = a.add_state();
    add_other_name(a, properties, choose[count], named);
    value(named, *others, done[count]);
  }
  // From the last property on that must be there, the object may be over.
  const GrammarState close = a.add_state();
  a.byte(close, '}', '}', end);
  for (std::size_t i = count + 1; i-- > 0;) {
    a.call(a.text(done[i], ","), rules.space, choose[i]);
    const bool rest_optional = std::ranges::none_of(
        properties.subspan(i), [](const PropertyRule& property) { return property.required; });
    if (rest_optional) a.call(done[i], rules.space, close);
  }
  if (!any_required) a.byte(open, '}', '}', end);
  return rule;
}

GrammarRule add_array(Automaton& a, const JsonRules& rules, std::span<const GrammarRule> first,
                      std::optional<GrammarRule> others, std::size_t least,
                      std::optional<std::size_t> most) {
  const GrammarRule rule = a.add_rule();
  const GrammarState start = a.add_state();
  a.set_start(rule, start);
  const GrammarState end = a.add_state(true);
  const GrammarState open = a.text(start, "[");
  if (least == 0) a.byte(open, ']', ']', end);
  if (!others) most = std::min(most.value_or(first.size()), first.size());
  if (most && (*most == 0 || *most < least)) return rule;
  const GrammarState close = a.add_state();
  a.byte(close, ']', ']', end);
  // Behind this many items all are alike.
  const std::size_t distinct = most ? *most : std::max({first.size(), least, std::size_t{1}});
  GrammarState before = a.add_state();
  a.call(open, rules.space, before);
  for (std::size_t i = 0; i < distinct; ++i) {
    const GrammarState behind = a.add_state();
    a.call(before, i < first.size() ? first[i] : *others, behind);
    if (i + 1 >= least) a.call(behind, rules.space, close);
    if (most && i + 1 == distinct) break;
    const GrammarState next = a.add_state();
    a.call(a.text(behind, ","), rules.space, next);
    if (i + 1 == distinct) a.call(next, *others, behind);
    before = next;
  }
  return rule;
}

}  // namespace mobius
