#include "engine/tokenizer/detokenizer.h"

#include "engine/tokenizer/utf8.h"

namespace mobius {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

}  // namespace

std::string Detokenizer::push(std::int32_t token) {
  if (tokenizer_->is_special(token)) return {};
  pending_ += tokenizer_->bytes(token);

  std::string out;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const std::size_t valid = utf8_valid_prefix(rest);
    out += rest.substr(0, valid);
    rest.remove_prefix(valid);
    if (rest.empty()) break;
    const Utf8Step step = utf8_step(rest);
    if (step.kind == Utf8Step::Kind::incomplete) break;
    out += kReplacement;
    rest.remove_prefix(step.length);
  }
  pending_.erase(0, pending_.size() - rest.size());
  return out;
}

std::string Detokenizer::finish() {
  // What is pending is the beginning of one character: a single ill-formed part.
  const bool broken = !pending_.empty();
  pending_.clear();
  return broken ? std::string(kReplacement) : std::string();
}

}  // namespace mobius
