#include "engine/grammar/stack_sets.h"

#include <gtest/gtest.h>

#include <string_view>

namespace mobius {
namespace {

/// value = "x" | "[" value "]" by two rules that say the same, so that a text of depth n has 2^n
/// readings.
Automaton ambiguous() {
  Automaton a;
  const GrammarRule value = a.add_rule();
  const GrammarState start = a.add_state();
  a.set_start(value, start);
  const GrammarState end = a.add_state(true);
  a.byte(start, 'x', 'x', end);
  for (int i = 0; i < 2; ++i) {
    const GrammarRule list = a.add_rule();
    const GrammarState open = a.add_state();
    a.set_start(list, open);
    const GrammarState close = a.add_state();
    a.call(a.text(open, "["), value, close);
    a.byte(close, ']', ']', a.add_state(true));
    a.call(start, list, end);
  }
  EXPECT_TRUE(a.finish(value));
  EXPECT_EQ(a.left_recursive_rule(), -1);
  return a;
}

StackSets::Node follow(StackSets& sets, StackSets::Node front, std::string_view text) {
  for (const char c : text) {
    if (front != StackSets::kDead) front = sets.step(front, static_cast<std::uint8_t>(c));
  }
  return front;
}

TEST(StackSets, AmbiguityDoesNotMultiply) {
  const Automaton automaton = ambiguous();
  StackSets sets(automaton);
  StackSets::Node front = sets.start();
  constexpr int kDepth = 200;
  for (int i = 0; i < kDepth; ++i) front = follow(sets, front, "[");
  EXPECT_LT(sets.size(), 20U * kDepth);
  front = follow(sets, front, "x");
  for (int i = 0; i < kDepth; ++i) {
    ASSERT_NE(front, StackSets::kDead);
    EXPECT_FALSE(sets.may_end(front));
    front = follow(sets, front, "]");
  }
  EXPECT_TRUE(sets.must_end(front));
  EXPECT_EQ(sets.step(front, ']'), StackSets::kDead);
}

TEST(StackSets, ForgettingKeepsTheState) {
  const Automaton automaton = ambiguous();
  StackSets sets(automaton);
  StackSets::Node front = follow(sets, sets.start(), "[[[[[");
  follow(sets, front, "[[[[[[[[[[");
  const std::size_t before = sets.size();
  front = sets.compact(front);
  EXPECT_LT(sets.size(), before);
  EXPECT_EQ(follow(sets, front, "]"), StackSets::kDead);
  EXPECT_TRUE(sets.must_end(follow(sets, front, "x]]]]]")));
}

TEST(Automaton, LeavesOutWhatCannotBeCompleted) {
  Automaton a;
  const GrammarRule rule = a.add_rule();
  const GrammarState start = a.add_state();
  a.set_start(rule, start);
  a.text(start, "ab");  // leads nowhere
  a.text(start, "ac", a.add_state(true));
  const GrammarRule endless = a.add_rule();
  const GrammarState again = a.add_state();
  a.set_start(endless, again);
  a.call(a.text(again, "["), endless, a.add_state(true));
  a.call(start, endless, a.add_state(true));
  EXPECT_FALSE(Automaton(a).finish(endless));
  ASSERT_TRUE(a.finish(rule));
  StackSets sets(a);
  EXPECT_EQ(follow(sets, sets.start(), "["), StackSets::kDead);
  EXPECT_EQ(follow(sets, sets.start(), "ab"), StackSets::kDead);
  EXPECT_TRUE(sets.must_end(follow(sets, sets.start(), "ac")));
}

TEST(Automaton, FindsLeftRecursionThroughEmptyRules) {
  Automaton a;
  const GrammarRule nothing = a.add_rule();
  a.set_start(nothing, a.add_state(true));
  const GrammarRule rule = a.add_rule();
  const GrammarState start = a.add_state();
  a.set_start(rule, start);
  const GrammarState end = a.add_state(true);
  a.byte(start, 'x', 'x', end);
  const GrammarState behind = a.add_state();
  a.call(start, nothing, behind);
  const GrammarState suffix = a.add_state();
  a.call(behind, rule, suffix);
  a.byte(suffix, 'y', 'y', end);
  ASSERT_TRUE(a.finish(rule));
  EXPECT_EQ(a.left_recursive_rule(), rule);
}

}  // namespace
}  // namespace mobius
