#include "engine/grammar/form_rules.h"

#include <cstdint>
#include <span>
#include <vector>

#include "engine/grammar/schema_rules.h"

namespace mobius {
namespace {

void add_byte(Automaton& a, GrammarState from, char c, GrammarState to) {
  const auto byte = static_cast<std::uint8_t>(c);
  a.byte(from, byte, byte, to);
}

GrammarRule add_several(Automaton& a, const JsonRules& rules, GrammarRule value) {
  const GrammarRule rule = a.add_rule();
  const GrammarState start = a.add_state();
  a.set_start(rule, start);
  const GrammarState end = a.add_state(true);
  a.call(start, value, end);
  const GrammarState behind = a.add_state();
  add_byte(a, end, ';', behind);
  a.call(behind, rules.space, start);
  return rule;
}

/// Valid UTF-8 whose first character that is no white space is not '{'.
GrammarRule add_text(Automaton& a) {
  const GrammarRule rule = a.add_rule();
  const GrammarState start = a.add_state(true);
  a.set_start(rule, start);
  for (const char c : {' ', '\t', '\n', '\r'}) add_byte(a, start, c, start);
  const GrammarState rest = a.add_state(true);
  a.byte(start, 0x00, 0x08, rest);
  a.byte(start, 0x0B, 0x0C, rest);
  a.byte(start, 0x0E, 0x1F, rest);
  a.byte(start, '!', '{' - 1, rest);
  a.byte(start, '{' + 1, 0x7F, rest);
  add_multi_byte(a, start, rest);
  a.byte(rest, 0x00, 0x7F, rest);
  add_multi_byte(a, rest, rest);
  return rule;
}

}  // namespace

GrammarRule add_forms(Automaton& a, const JsonRules& rules, const GrammarForms& forms,
                      GrammarRule values, std::optional<GrammarRule> other) {
  std::vector<GrammarRule> choices = {forms.several ? add_several(a, rules, values) : values};
  if (other) choices.push_back(*other);
  if (forms.text) choices.push_back(add_text(a));
  return choices.size() == 1 ? choices.front() : add_choice(a, choices);
}

}  // namespace mobius
