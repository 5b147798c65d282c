#include "engine/grammar/number_rules.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <tuple>

#include "engine/grammar/json_rules.h"

namespace mobius {
namespace {

/// Decimals from `lower` to `upper`, both without sign, digit by digit: what is written so far is
/// either a prefix of a bound (tight) or free of it.
class Magnitudes {
 public:
  Magnitudes(Automaton& automaton, const NumberBounds& bounds, GrammarState end)
      : a_(automaton), bounds_(bounds), end_(end) {}

  void add(GrammarState from) {
    const std::size_t least = bounds_.lower->whole.size();
    const std::size_t most =
        bounds_.upper ? bounds_.upper->whole.size() : static_cast<std::size_t>(kMaxIntegerDigits);
    for (std::size_t length = least; length <= std::min<std::size_t>(most, kMaxIntegerDigits);
         ++length) {
      const bool tight_lower = length == least;
      const bool tight_upper = bounds_.upper && length == most;
      a_.empty(from, whole(length, 0, tight_lower, tight_upper, 0));
    }
  }

 private:
  static int digit(const std::string& digits, std::size_t at) {
    return at < digits.size() ? digits[at] - '0' : 0;
  }

  template <typename To>
  void digits(GrammarState from, int low, int high, const To& to) {
    for (int d = low; d <= high; ++d) {
      const auto byte = static_cast<std::uint8_t>('0' + d);
      a_.byte(from, byte, byte, to(d));
    }
  }

  /// `at` digits of `length` are written; they leave `rest` when divided by the multiple.
  GrammarState whole(std::size_t length, std::size_t at, bool tight_lower, bool tight_upper,
                     int rest) {
    // What is tight has a bound's length, and what is not, only its digits to come count; but for
    // the first, which must not be a zero with others behind it.
    const auto key = std::tuple(length - at, at == 0, tight_lower, tight_upper, rest);
    if (const auto known = whole_.find(key); known != whole_.end()) return known->second;
    const GrammarState state = a_.add_state();
    whole_.emplace(key, state);
    if (at == length) {
      if (rest == 0) a_.empty(state, fraction(0, tight_lower, tight_upper));
      return state;
    }
    const int first = at == 0 && length > 1 ? 1 : 0;
    const int low = tight_lower ? digit(bounds_.lower->whole, at) : 0;
    const int high = tight_upper ? digit(bounds_.upper->whole, at) : 9;
    digits(state, std::max(low, first), high, [&](int d) {
      return whole(length, at + 1, tight_lower && d == low, tight_upper && d == high,
                   (rest * 10 + d) % bounds_.multiple);
    });
    return state;
  }

  /// `at` digits behind the point are written.
  GrammarState fraction(int at, bool tight_lower, bool tight_upper) {
    const auto key = std::tuple(at, tight_lower, tight_upper);
    if (const auto known = fraction_.find(key); known != fraction_.end()) return known->second;
    const GrammarState state = a_.add_state();
    fraction_.emplace(key, state);
    if (may_end(at, tight_lower, tight_upper)) a_.empty(state, end_);
    if (at >= bounds_.fraction_digits) return state;
    const GrammarState behind = at == 0 ? a_.text(state, ".") : state;
    const auto i = static_cast<std::size_t>(at);
    const int low = tight_lower ? digit(bounds_.lower->fraction, i) : 0;
    const int high = tight_upper ? digit(bounds_.upper->fraction, i) : 9;
    digits(behind, low, high, [&](int d) {
      return fraction(at + 1, tight_lower && d == low, tight_upper && d == high);
    });
    return state;
  }

  bool may_end(int at, bool tight_lower, bool tight_upper) const {
    const auto reached = [at](const Decimal& bound) {
      return bound.fraction.size() <= static_cast<std::size_t>(at);
    };
    if (tight_lower && (!reached(*bounds_.lower) || bounds_.lower_exclusive)) return false;
    return !(tight_upper && reached(*bounds_.upper) && bounds_.upper_exclusive);
  }

  Automaton& a_;
  const NumberBounds& bounds_;
  GrammarState end_;
  std::map<std::tuple<std::size_t, bool, bool, bool, int>, GrammarState> whole_;
  std::map<std::tuple<int, bool, bool>, GrammarState> fraction_;
};

Decimal magnitude(Decimal value) {
  value.negative = false;
  return value;
}

}  // namespace

bool is_zero(const Decimal& value) {
  return value.whole == "0" && value.fraction.empty();
}

Decimal to_decimal(double value) {
  std::array<char, 1200> text{};
  const auto written = std::to_chars(text.data(), text.data() + text.size(), std::abs(value),
                                     std::chars_format::fixed);
  Decimal out;
  const std::string digits(text.data(), written.ptr);
  const std::size_t point = digits.find('.');
  out.whole = digits.substr(0, point);
  if (point != std::string::npos) out.fraction = digits.substr(point + 1);
  while (!out.fraction.empty() && out.fraction.back() == '0') out.fraction.pop_back();
  out.negative = value < 0;
  return out;
}

GrammarRule add_bounded_number(Automaton& a, const NumberBounds& bounds) {
  const GrammarRule rule = a.add_rule();
  const GrammarState start = a.add_state();
  const GrammarState end = a.add_state(true);
  a.set_start(rule, start);
  const Decimal zero;
  if (!bounds.upper || !bounds.upper->negative) {
    NumberBounds positive = bounds;
    if (!bounds.lower || bounds.lower->negative) {
      positive.lower = zero;
      positive.lower_exclusive = false;
    }
    Magnitudes(a, positive, end).add(start);
  }
  if (!bounds.lower || bounds.lower->negative) {
    NumberBounds mirrored = bounds;
    mirrored.lower = zero;
    mirrored.lower_exclusive = true;
    mirrored.upper.reset();
    if (bounds.upper && bounds.upper->negative) {
      mirrored.lower = magnitude(*bounds.upper);
      mirrored.lower_exclusive = bounds.upper_exclusive;
    }
    if (bounds.lower) {
      mirrored.upper = magnitude(*bounds.lower);
      mirrored.upper_exclusive = bounds.lower_exclusive;
    }
    Magnitudes(a, mirrored, end).add(a.text(start, "-"));
  }
  return rule;
}

}  // namespace mobius
