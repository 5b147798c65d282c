#include "engine/grammar/pattern_parser.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "engine/tokenizer/utf8.h"

namespace mobius {
namespace {

constexpr char32_t kLast = 0x10FFFF;
constexpr int kMaxRepeat = 1000;
constexpr int kMaxGroups = 64;  // nested

const CodePoints kDigits = {{'0', '9'}};
const CodePoints kWords = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CodePoints kSpaces = {{0x09, 0x0D},     {0x20, 0x20},     {0xA0, 0xA0},     {0x1680, 0x1680},
                            {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                            {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
const CodePoints kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

PatternNode anything() {
  PatternNode any;
  any.kind = PatternNode::Kind::set;
  any.set = {{0, kLast}};
  PatternNode all;
  all.kind = PatternNode::Kind::repeat;
  all.children.push_back(std::move(any));
  return all;
}

class Parser {
 public:
  explicit Parser(std::string_view pattern) : rest_(pattern) {}

  bool parse(PatternNode& root, std::string& error) {
    root = choice(0);
    if (error_.empty() && !rest_.empty()) fail("has a ) without (");
    error = error_;
    return error_.empty();
  }

 private:
  bool at(char c) const { return !rest_.empty() && rest_.front() == c; }
  bool take(char c) {
    if (!at(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void fail(const std::string& what) {
    if (error_.empty()) error_ = what;
    rest_ = {};
  }
  /// Only where the rest is not empty.
  char32_t next() {
    const Utf8Step step = utf8_step(rest_);
    rest_.remove_prefix(step.length);
    return step.code_point;
  }

  PatternNode choice(int depth) {
    PatternNode node;
    node.kind = PatternNode::Kind::choice;
    do node.children.push_back(sequence(depth));
    while (take('|'));
    if (node.children.size() == 1) return std::move(node.children.front());
    return node;
  }

  PatternNode sequence(int depth) {
    PatternNode node;
    const bool top = depth == 0;
    if (top && !take('^')) node.children.push_back(anything());
    while (!rest_.empty() && !at('|') && !at(')')) {
      if (at('$')) {
        rest_.remove_prefix(1);
        if (top && (rest_.empty() || at('|'))) return node;
        fail("has a $ that is not at the end");
        return node;
      }
      node.children.push_back(repeated(depth));
    }
    if (top) node.children.push_back(anything());
    return node;
  }

  std::optional<int> number() {
    if (rest_.empty() || rest_.front() < '0' || rest_.front() > '9') return std::nullopt;
    int value = 0;
    while (!rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9') {
      value = std::min(value * 10 + (rest_.front() - '0'), kMaxRepeat + 1);
      rest_.remove_prefix(1);
    }
    return value;
  }

  PatternNode repeated(int depth) {
    PatternNode node = atom(depth);
    for (int times = 0;; ++times) {
      PatternNode repeat;
      repeat.kind = PatternNode::Kind::repeat;
      if (take('*')) {
      } else if (take('+')) {
        repeat.least = 1;
      } else if (take('?')) {
        repeat.most = 1;
      } else if (take('{')) {
        const std::optional<int> least = number();
        if (!least) {
          fail("has a { that is not {m}, {m,} or {m,n}");
          return node;
        }
        repeat.least = repeat.most = *least;
        if (take(',')) repeat.most = number().value_or(-1);
        if (!take('}')) fail("has a { that is not {m}, {m,} or {m,n}");
        if (std::max(repeat.least, repeat.most) > kMaxRepeat) {
          fail("repeats more than " + std::to_string(kMaxRepeat) + " times");
        }
        if (repeat.most >= 0 && repeat.most < repeat.least) fail("has a {m,n} with n below m");
      } else {
        return node;
      }
      if (times > 0) {
        fail("repeats a repetition");
        return node;
      }
      take('?');  // lazy: the same texts
      repeat.children.push_back(std::move(node));
      node = std::move(repeat);
    }
  }

  PatternNode atom(int depth) {
    PatternNode node;
    if (take('(')) {
      if (take('?') && !take(':')) {
        fail("has a group other than (...) and (?:...)");
        return node;
      }
      if (depth >= kMaxGroups) {
        fail("nests groups more than " + std::to_string(kMaxGroups) + " deep");
        return node;
      }
      node = choice(depth + 1);
      if (!take(')')) fail("has a ( without )");
      return node;
    }
    node.kind = PatternNode::Kind::set;
    if (at('*') || at('+') || at('?') || at('{')) {
      fail("repeats nothing");
    } else if (at('^')) {
      fail("has a ^ that is not at the beginning");
    } else if (take('[')) {
      node.set = bracket();
    } else if (take('.')) {
      node.set = complement(kLineEnds);
    } else if (take('\\')) {
      node.set = escape(false);
    } else {
      const char32_t c = next();
      node.set = {{c, c}};
    }
    return node;
  }

  std::optional<char32_t> hex(int digits) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      if (rest_.empty()) return std::nullopt;
      const char c = rest_.front();
      rest_.remove_prefix(1);
      char32_t digit = 0;
      if (c >= '0' && c <= '9') {
        digit = static_cast<char32_t>(c - '0');
      } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
        digit = static_cast<char32_t>((c | 0x20) - 'a' + 10);
      } else {
        return std::nullopt;
      }
      value = value * 16 + digit;
    }
    return value;
  }

  CodePoints escape(bool in_bracket) {
    if (rest_.empty()) {
      fail("ends in a \\");
      return {};
    }
    const char32_t c = next();
    const auto one = [](char32_t code_point) { return CodePoints{{code_point, code_point}}; };
    switch (c) {
      case 'd': return kDigits;
      case 'D': return complement(kDigits);
      case 'w': return kWords;
      case 'W': return complement(kWords);
      case 's': return kSpaces;
      case 'S': return complement(kSpaces);
      case 't': return one('\t');
      case 'n': return one('\n');
      case 'v': return one('\v');
      case 'f': return one('\f');
      case 'r': return one('\r');
      case 'x':
      case 'u': {
        const std::optional<char32_t> code_point = hex(c == 'x' ? 2 : 4);
        if (code_point && (*code_point < 0xD800 || *code_point > 0xDFFF)) return one(*code_point);
        fail("has a \\x or \\u that is no character");
        return {};
      }
      default: break;
    }
    const bool letter = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (in_bracket && c == 'b') return one('\b');
    if (letter) {
      fail(std::string("has \\") + static_cast<char>(c) + ", which is not supported");
      return {};
    }
    return one(c);
  }

  CodePoints bracket() {
    const bool negated = take('^');
    CodePoints set;
    while (!at(']')) {
      if (rest_.empty()) {
        fail("has a [ without ]");
        return {};
      }
      const auto item = [&]() -> CodePoints {
        if (take('\\')) return escape(true);
        const char32_t c = next();
        return {{c, c}};
      };
      CodePoints first = item();
      const bool single = first.size() == 1 && first[0].first == first[0].second;
      if (at('-') && rest_.size() > 1 && rest_[1] != ']') {
        rest_.remove_prefix(1);
        const CodePoints last = item();
        if (!single || last.size() != 1 || last[0].first != last[0].second ||
            last[0].first < first[0].first) {
          fail("has a range in [] that is not from one character to the same or a later one");
          return {};
        }
        first[0].second = last[0].first;
      }
      set.insert(set.end(), first.begin(), first.end());
    }
    take(']');
    set = normal(std::move(set));
    return negated ? complement(set) : set;
  }

  std::string_view rest_;
  std::string error_;
};

}  // namespace

CodePoints normal(CodePoints set) {
  std::ranges::sort(set);
  CodePoints out;
  for (const auto& range : set) {
    if (!out.empty() && range.first <= out.back().second + 1) {
      out.back().second = std::max(out.back().second, range.second);
    } else {
      out.push_back(range);
    }
  }
  return out;
}

CodePoints complement(const CodePoints& set) {
  CodePoints out;
  char32_t begin = 0;
  for (const auto& [first, last] : set) {
    if (first > begin) out.emplace_back(begin, first - 1);
    begin = last + 1;
  }
  if (begin <= kLast) out.emplace_back(begin, kLast);
  return out;
}

bool parse_pattern(std::string_view pattern, PatternNode& root, std::string& error) {
  return Parser(pattern).parse(root, error);
}

}  // namespace mobius
