#pragma once

#include <cstdint>
#include <string>

#include "server/cli/load_plan.h"

namespace mobius {

/// How many tokens of a server's the words below become: learnt from two prompts that it counted.
struct TokenRate {
  double tokens_per_word = 1;
  double overhead = 0;  ///< tokens of a prompt without a word: a chat's template

  /// From prompts of `few` and `many` words; a rate of 1 where the counts make no sense.
  static TokenRate of(std::int64_t few, std::int64_t few_tokens, std::int64_t many,
                      std::int64_t many_tokens);
};

/// `count` common English words that follow from `seed`, a blank between two.
std::string filler_words(std::uint64_t seed, std::int64_t count);

/// Text that makes a prompt of about request.prompt_tokens: words of one block after the other.
std::string prompt_text(const PlannedRequest& request, const TokenRate& rate);

}  // namespace mobius
