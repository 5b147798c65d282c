#include "engine/grammar/form_rules.h"

#include <vector>

#include "engine/grammar/schema_rules.h"

namespace mobius {
namespace {

GrammarRule add_several(Automaton& a, const JsonRules& rules, GrammarRule value) {
  const GrammarRule rule = a.add_rule();
  const GrammarState start = a.add_state();
  a.set_start(rule, start);
  const GrammarState end = a.add_state(true);
  a.call(start, value, end);
  const GrammarState behind = a.add_state();
  a.byte(end, ';', ';', behind);
  a.call(behind, rules.space, start);
  return rule;
}

}  // namespace

GrammarRule add_forms(Automaton& a, const JsonRules& rules, const GrammarForms& forms,
                      GrammarRule values, std::optional<GrammarRule> other) {
  std::vector<GrammarRule> choices = {forms.several ? add_several(a, rules, values) : values};
  if (other) choices.push_back(*other);
  if (forms.text) choices.push_back(rules.text);
  return choices.size() == 1 ? choices.front() : add_choice(a, choices);
}

}  // namespace mobius
