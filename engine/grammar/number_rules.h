#pragma once

#include <optional>
#include <string>

#include "engine/grammar/automaton.h"

namespace mobius {

/// A finite decimal: -12.5 is {true, "12", "5"}. No zeros before `whole` or behind `fraction`.
struct Decimal {
  bool negative = false;
  std::string whole = "0";
  std::string fraction;
};

/// What a double says in its shortest decimal form that reads back the same.
Decimal to_decimal(double value);
bool is_zero(const Decimal& value);

struct NumberBounds {
  std::optional<Decimal> lower;
  std::optional<Decimal> upper;
  bool lower_exclusive = false;
  bool upper_exclusive = false;
  int multiple = 1;         ///< whole numbers: of this
  int fraction_digits = 0;  ///< at most; 0: whole numbers only
};

/// A rule for the numbers within bounds, without exponents and without "-0". It matches nothing
/// where there are none (of at most kMaxIntegerDigits digits before the point).
GrammarRule add_bounded_number(Automaton& automaton, const NumberBounds& bounds);

}  // namespace mobius
