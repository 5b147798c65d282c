#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/grammar/grammar.h"
#include "engine/tokenizer/tokenizer.h"

namespace mobius {

/// The tokenizer of small_tokenizer(): ids 0 to 255 are the bytes.
const Tokenizer& small();
std::shared_ptr<const GrammarVocabulary> small_vocabulary();

/// Compiles JSON text; fails the test where it is refused.
std::shared_ptr<const Grammar> compile(std::string_view schema);
/// The refusal's message; empty where there is none.
std::string refusal(std::string_view schema, const SchemaLimits& limits = {});

/// The text is in the language, byte by byte.
bool accepts(const std::shared_ptr<const Grammar>& grammar, std::string_view text);
/// The bytes of `text` that can be taken.
std::size_t accepted_prefix(const std::shared_ptr<const Grammar>& grammar, std::string_view text);

/// Tokens that the mask allows.
std::vector<std::int32_t> allowed(GrammarMatcher& matcher, const Tokenizer& tokenizer);

}  // namespace mobius
