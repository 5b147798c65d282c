#include "engine/tokenizer/split_pattern.h"

#include <cstdint>
#include <new>
#include <stdexcept>

#include "engine/tokenizer/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace mobius {
namespace {

// Unicode's White_Space. PCRE2's own \s has U+180E besides, which Unicode took out in 6.3 and
// Oniguruma does not count.
constexpr std::string_view kSpaces = R"(\x{09}-\x{0D}\x{20}\x{85}\p{Z})";

// A match may use this much stack before it is given up.
constexpr std::size_t kSmallStack = 1u << 20;
constexpr std::size_t kLargeStack = 256u << 20;
constexpr std::uint32_t kHeapLimitKiB = 256u << 10;

[[noreturn]] void unsupported(std::string_view what) {
  throw std::runtime_error("split pattern: " + std::string(what) + " is not supported");
}

/// Rewrites what Oniguruma and PCRE2 read differently and refuses what has no rewriting.
std::string to_pcre2(std::string_view regex) {
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < regex.size(); ++i) {
    const char c = regex[i];
    if (c == '\\') {
      if (++i == regex.size()) unsupported("a trailing backslash");
      const char escaped = regex[i];
      if (escaped == 's') {
        out += in_class ? std::string(kSpaces) : "[" + std::string(kSpaces) + "]";
      } else if (escaped == 'S') {
        if (in_class) unsupported("\\S in a character class");
        out += "[^" + std::string(kSpaces) + "]";
      } else {
        const bool is_word = (escaped >= 'a' && escaped <= 'z') ||
                             (escaped >= 'A' && escaped <= 'Z') ||
                             (escaped >= '0' && escaped <= '9');
        if (is_word && std::string_view("pPdDrnt").find(escaped) == std::string_view::npos) {
          unsupported(std::string("\\") + escaped);
        }
        out += c;
        out += escaped;
      }
      continue;
    }
    if (in_class) {
      if (c == '[') unsupported("a nested character class");
      if (regex.substr(i, 2) == "&&") unsupported("&& in a character class");
      if (c == ']') in_class = false;
    } else {
      if (c == '^' || c == '$' || c == '.') unsupported(std::string_view(&c, 1));
      if (c == '[') {
        in_class = true;
        out += c;
        if (regex.substr(i + 1, 1) == "^") out += regex[++i];
        if (regex.substr(i + 1, 1) == "]") unsupported("a character class that begins with ]");
        continue;
      }
    }
    out += c;
  }
  return out;
}

}  // namespace

struct SplitPattern::Impl {
  pcre2_code* code = nullptr;
  bool jit = false;
  ~Impl() { pcre2_code_free(code); }
};

SplitPattern::SplitPattern(std::string_view regex) : impl_(std::make_unique<Impl>()) {
  const std::string pattern = to_pcre2(regex);
  int error = 0;
  PCRE2_SIZE offset = 0;
  impl_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (impl_->code == nullptr) {
    unsigned char message[256] = {};
    pcre2_get_error_message(error, message, sizeof(message));
    throw std::runtime_error("split pattern: " +
                             std::string(reinterpret_cast<const char*>(message)));
  }
  // Where PCRE2 was built without JIT, its interpreter gives the same pieces, slower.
  impl_->jit = pcre2_jit_compile(impl_->code, PCRE2_JIT_COMPLETE) == 0;
}

SplitPattern::~SplitPattern() = default;

struct Pieces::State {
  pcre2_match_data* match = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;

  explicit State(const pcre2_code* code)
      : match(pcre2_match_data_create_from_pattern(code, nullptr)),
        context(pcre2_match_context_create(nullptr)) {
    if (match == nullptr || context == nullptr) {
      release();
      throw std::bad_alloc();
    }
    pcre2_set_heap_limit(context, kHeapLimitKiB);
    pcre2_set_match_limit(context, UINT32_MAX);
    pcre2_set_depth_limit(context, UINT32_MAX);
  }
  ~State() { release(); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void release() {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }

  /// True if a match was found at or behind `at`; its bounds are in `match`'s vector.
  int find(const SplitPattern::Impl& pattern, std::string_view text, std::size_t at) {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    if (!pattern.jit) {
      return pcre2_match(pattern.code, subject, text.size(), at, PCRE2_NO_UTF_CHECK, match,
                         context);
    }
    int found = pcre2_jit_match(pattern.code, subject, text.size(), at, 0, match, context);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT && stack == nullptr) {
      // The machine stack's 32 KiB were not enough: lend a stack that grows as it is used.
      stack = pcre2_jit_stack_create(kSmallStack, kLargeStack, nullptr);
      if (stack != nullptr) {
        pcre2_jit_stack_assign(context, nullptr, stack);
        found = pcre2_jit_match(pattern.code, subject, text.size(), at, 0, match, context);
      }
    }
    return found;
  }
};

Pieces::Pieces(const SplitPattern& pattern)
    : pattern_(pattern.impl_.get()), state_(std::make_unique<State>(pattern.impl_->code)) {}

Pieces::~Pieces() = default;

void Pieces::start(std::string_view text) {
  text_ = text;
  at_ = match_begin_ = match_end_ = 0;
}

std::string_view Pieces::take(std::size_t end) {
  const std::string_view piece = text_.substr(at_, end - at_);
  at_ = end;
  return piece;
}

std::string_view Pieces::next() {
  if (match_end_ > at_) return take(match_end_);
  std::size_t search = at_;
  while (search < text_.size()) {
    const int found = state_->find(*pattern_, text_, search);
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) break;  // given up; trying again behind it would cost as much each time
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(state_->match);
    if (bounds[1] <= bounds[0]) {  // an empty match splits nothing
      search = bounds[0];
      if (search < text_.size()) search += utf8_step(text_.substr(search)).length;
      continue;
    }
    match_begin_ = bounds[0];
    match_end_ = bounds[1];
    return take(match_begin_ > at_ ? match_begin_ : match_end_);
  }
  return take(text_.size());
}

}  // namespace mobius
