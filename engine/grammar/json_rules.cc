#include "engine/grammar/json_rules.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

namespace mobius {
namespace {

constexpr char32_t kLastCodePoint = 0x10FFFF;

/// A state from which one continuation byte leads to `to`.
GrammarState continuation(Automaton& a, GrammarState to) {
  const GrammarState state = a.add_state();
  a.byte(state, 0x80, 0xBF, to);
  return state;
}

void add_hex(Automaton& a, GrammarState from, GrammarState to) {
  a.byte(from, '0', '9', to);
  a.byte(from, 'A', 'F', to);
  a.byte(from, 'a', 'f', to);
}

void add_either_case(Automaton& a, GrammarState from, char low, char high, GrammarState to) {
  a.byte(from, static_cast<std::uint8_t>(low), static_cast<std::uint8_t>(high), to);
  a.byte(from, static_cast<std::uint8_t>(low - 'a' + 'A'),
         static_cast<std::uint8_t>(high - 'a' + 'A'), to);
}

/// What follows a backslash, RFC 8259, section 7. Escaped surrogates come in pairs only.
GrammarRule add_escape(Automaton& a) {
  const GrammarRule rule = a.add_rule();
  const GrammarState escape = a.add_state();
  a.set_start(rule, escape);
  const GrammarState to = a.add_state(true);
  for (const char c : {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'}) {
    const auto byte = static_cast<std::uint8_t>(c);
    a.byte(escape, byte, byte, to);
  }
  const GrammarState hex1 = a.add_state();  // digits to come: 1
  add_hex(a, hex1, to);
  const GrammarState hex2 = a.add_state();
  add_hex(a, hex2, hex1);
  const GrammarState hex3 = a.add_state();
  add_hex(a, hex3, hex2);
  const GrammarState hex4 = a.add_state();
  a.byte(escape, 'u', 'u', hex4);
  a.byte(hex4, '0', '9', hex3);
  add_either_case(a, hex4, 'a', 'c', hex3);
  add_either_case(a, hex4, 'e', 'f', hex3);
  const GrammarState after_d = a.add_state();
  add_either_case(a, hex4, 'd', 'd', after_d);
  a.byte(after_d, '0', '7', hex2);
  const GrammarState low_escape = a.add_state();
  const GrammarState high1 = a.add_state();
  add_hex(a, high1, low_escape);
  const GrammarState high2 = a.add_state();
  add_hex(a, high2, high1);
  a.byte(after_d, '8', '9', high2);
  add_either_case(a, after_d, 'a', 'b', high2);
  const GrammarState low_d = a.text(low_escape, "\\u");
  const GrammarState low_second = a.add_state();
  add_either_case(a, low_d, 'd', 'd', low_second);
  add_either_case(a, low_second, 'c', 'f', hex2);
  return rule;
}

/// A rule for one of the literals.
GrammarRule add_literals(Automaton& a, std::initializer_list<std::string_view> literals) {
  const GrammarRule rule = a.add_rule();
  const GrammarState start = a.add_state();
  const GrammarState end = a.add_state(true);
  a.set_start(rule, start);
  for (const std::string_view literal : literals) a.text(start, literal, end);
  return rule;
}

GrammarRule add_space(Automaton& a) {
  const GrammarRule rule = a.add_rule();
  const GrammarState start = a.add_state(true);
  a.set_start(rule, start);
  const GrammarState end = a.add_state(true);
  a.byte(start, ' ', ' ', end);
  GrammarState line = a.add_state(true);
  a.byte(start, '\n', '\n', line);
  for (int i = 0; i < kMaxIndent; ++i) {
    const GrammarState next = a.add_state(true);
    a.byte(line, ' ', ' ', next);
    a.byte(line, '\t', '\t', next);
    line = next;
  }
  return rule;
}

/// -?(0|[1-9][0-9]*), and with `fraction` what may follow it.
GrammarRule add_number(Automaton& a, bool fraction) {
  const GrammarRule rule = a.add_rule();
  const GrammarState start = a.add_state();
  const GrammarState digits = a.add_state();
  const GrammarState whole = a.add_state(true);
  a.set_start(rule, start);
  a.empty(start, digits);
  a.byte(start, '-', '-', digits);
  a.byte(digits, '0', '0', whole);
  const GrammarState more = a.add_state();
  a.byte(digits, '1', '9', more);
  add_digits(a, more, 0, kMaxIntegerDigits - 1, whole);
  if (!fraction) return rule;
  const GrammarState end = a.add_state(true);
  const GrammarState point = a.add_state();
  a.byte(whole, '.', '.', point);
  const GrammarState behind = a.add_state(true);
  add_digits(a, point, 1, kMaxFractionDigits, behind);
  const GrammarState exponent = a.add_state();
  const GrammarState power = a.add_state();
  for (const GrammarState from : {whole, behind}) {
    a.byte(from, 'e', 'e', exponent);
    a.byte(from, 'E', 'E', exponent);
  }
  a.empty(exponent, power);
  a.byte(exponent, '+', '+', power);
  a.byte(exponent, '-', '-', power);
  add_digits(a, power, 1, kMaxExponentDigits, end);
  return rule;
}

}  // namespace

// Unicode 15, table 3-7.
void add_multi_byte(Automaton& a, GrammarState from, GrammarState to) {
  const GrammarState one = continuation(a, to);
  const GrammarState two = continuation(a, one);
  const GrammarState three = continuation(a, two);
  a.byte(from, 0xC2, 0xDF, one);
  a.byte(from, 0xE1, 0xEC, two);
  a.byte(from, 0xEE, 0xEF, two);
  a.byte(from, 0xF1, 0xF3, three);
  const auto special = [&](std::uint8_t lead, std::uint8_t low, std::uint8_t high,
                           GrammarState rest) {
    const GrammarState second = a.add_state();
    a.byte(from, lead, lead, second);
    a.byte(second, low, high, rest);
  };
  special(0xE0, 0xA0, 0xBF, one);  // no overlong forms
  special(0xED, 0x80, 0x9F, one);  // no surrogates
  special(0xF0, 0x90, 0xBF, two);
  special(0xF4, 0x80, 0x8F, two);  // no more than U+10FFFF
}

void add_digits(Automaton& a, GrammarState from, int least, int most, GrammarState to) {
  for (int i = 0;; ++i) {
    if (i >= least) a.empty(from, to);
    if (i == most) return;
    const GrammarState next = a.add_state();
    a.byte(from, '0', '9', next);
    from = next;
  }
}

namespace {

GrammarRule add_text(Automaton& a) {
  const GrammarRule rule = a.add_rule();
  const GrammarState start = a.add_state(true);
  a.set_start(rule, start);
  a.byte(start, ' ', ' ', start);
  a.byte(start, '\t', '\n', start);
  a.byte(start, '\r', '\r', start);
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

JsonRules add_json_rules(Automaton& a) {
  JsonRules rules;
  rules.space = add_space(a);

  rules.escape = add_escape(a);

  rules.string = a.add_rule();
  GrammarState start = a.add_state();
  a.set_start(rules.string, start);
  const GrammarState body = a.add_state();
  a.byte(start, '"', '"', body);
  add_string_char(a, rules, body, body);
  a.byte(body, '"', '"', a.add_state(true));

  rules.integer = add_number(a, false);
  rules.number = add_number(a, true);
  rules.boolean = add_literals(a, {"true", "false"});
  rules.null = add_literals(a, {"null"});

  rules.value = a.add_rule();
  rules.object = a.add_rule();
  rules.array = a.add_rule();
  start = a.add_state();
  GrammarState end = a.add_state(true);
  a.set_start(rules.value, start);
  for (const GrammarRule rule :
       {rules.string, rules.number, rules.boolean, rules.null, rules.object, rules.array}) {
    a.call(start, rule, end);
  }

  start = a.add_state();
  a.set_start(rules.object, start);
  const GrammarState key = a.add_state();
  const GrammarState colon = a.add_state();
  const GrammarState member = a.add_state();
  const GrammarState done = a.add_state();
  const GrammarState open = a.text(start, "{");
  end = a.add_state(true);
  a.byte(open, '}', '}', end);
  a.call(open, rules.space, key);
  a.call(key, rules.string, colon);
  const GrammarState before_value = a.text(colon, ":");
  const GrammarState value = a.add_state();
  a.call(before_value, rules.space, value);
  a.call(value, rules.value, member);
  const GrammarState comma = a.text(member, ",");
  a.call(comma, rules.space, key);
  a.call(member, rules.space, done);
  a.byte(done, '}', '}', end);

  start = a.add_state();
  a.set_start(rules.array, start);
  const GrammarState first = a.text(start, "[");
  end = a.add_state(true);
  a.byte(first, ']', ']', end);
  const GrammarState item = a.add_state();
  const GrammarState after = a.add_state();
  const GrammarState close = a.add_state();
  a.call(first, rules.space, item);
  a.call(item, rules.value, after);
  a.call(a.text(after, ","), rules.space, item);
  a.call(after, rules.space, close);
  a.byte(close, ']', ']', end);

  rules.text = add_text(a);
  return rules;
}

void add_string_char(Automaton& a, const JsonRules& rules, GrammarState from, GrammarState to) {
  a.byte(from, 0x20, 0x21, to);
  a.byte(from, 0x23, 0x5B, to);
  a.byte(from, 0x5D, 0x7F, to);
  add_multi_byte(a, from, to);
  a.call(a.text(from, "\\"), rules.escape, to);
}

std::string json_string(const std::string& text) {
  return nlohmann::json(text).dump();
}

namespace {

/// Edges for the UTF-8 of first to last, which have `length` bytes each and lie in
/// [base, base + 64^(length - 1)) where they share their first bytes.
void add_utf8(Automaton& a, GrammarState from, char32_t first, char32_t last, int length, bool lead,
              GrammarState to) {
  const auto byte_at = [&](char32_t code_point) {
    const auto bits =
        static_cast<std::uint8_t>(code_point >> (6 * (length - 1)) & (lead ? 0xFFU : 0x3FU));
    if (!lead) return static_cast<std::uint8_t>(0x80U | bits);
    constexpr std::array<std::uint8_t, 5> kLead = {0, 0, 0xC0, 0xE0, 0xF0};
    return static_cast<std::uint8_t>(kLead[static_cast<std::size_t>(length)] | bits);
  };
  const std::uint8_t low = byte_at(first);
  const std::uint8_t high = byte_at(last);
  if (length == 1) {
    a.byte(from, low, high, to);
    return;
  }
  const char32_t span = char32_t{1} << (6 * (length - 1));
  const bool whole_first = first % span == 0;
  const bool whole_last = last % span == span - 1;
  if (low == high) {
    const GrammarState next = a.add_state();
    a.byte(from, low, low, next);
    add_utf8(a, next, first, last, length - 1, false, to);
    return;
  }
  int begin = low;
  int end = high;
  if (!whole_first) {
    const GrammarState next = a.add_state();
    a.byte(from, low, low, next);
    add_utf8(a, next, first, first | (span - 1), length - 1, false, to);
    ++begin;
  }
  if (!whole_last) {
    const GrammarState next = a.add_state();
    a.byte(from, high, high, next);
    add_utf8(a, next, last & ~(span - 1), last, length - 1, false, to);
    --end;
  }
  if (begin > end) return;
  GrammarState next = to;
  for (int i = 1; i < length; ++i) next = continuation(a, next);
  a.byte(from, static_cast<std::uint8_t>(begin), static_cast<std::uint8_t>(end), next);
}

struct Utf8Length {
  char32_t first;
  char32_t last;
  int length;
};
/// Without the surrogates.
constexpr std::array<Utf8Length, 4> kMultiByte = {
    {{0x80, 0x7FF, 2}, {0x800, 0xD7FF, 3}, {0xE000, 0xFFFF, 3}, {0x10000, kLastCodePoint, 4}}};

void add_ascii(Automaton& a, GrammarState from, char32_t first, char32_t last, GrammarState to) {
  for (char32_t c = first; c <= last;) {
    const auto byte = static_cast<std::uint8_t>(c);
    if (byte >= 0x20 && byte != '"' && byte != '\\') {
      char32_t end = c;
      while (end < last && end + 1 != '"' && end + 1 != '\\') ++end;
      a.byte(from, byte, static_cast<std::uint8_t>(end), to);
      c = end + 1;
      continue;
    }
    const std::string escaped = json_string(std::string(1, static_cast<char>(byte)));
    a.text(from, std::string_view(escaped).substr(1, escaped.size() - 2), to);
    ++c;
  }
}

}  // namespace

void add_string_code_point(Automaton& a, GrammarState from, const CodePoints& set,
                           GrammarState to) {
  for (const auto& [first, last] : set) {
    if (first < 0x80) add_ascii(a, from, first, std::min<char32_t>(last, 0x7F), to);
    if (last < 0x80) continue;
    if (first <= 0x80 && last >= kLastCodePoint) {
      add_multi_byte(a, from, to);
      continue;
    }
    for (const Utf8Length& part : kMultiByte) {
      const char32_t low = std::max(first, part.first);
      const char32_t high = std::min(last, part.last);
      if (low <= high) add_utf8(a, from, low, high, part.length, true, to);
    }
  }
}

}  // namespace mobius
