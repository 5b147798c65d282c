#include "tests/unit/grammar/languages.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/unit/tokenizer/fixtures.h"

namespace mobius {

const Tokenizer& small() {
  static const std::shared_ptr<const Tokenizer> tokenizer = load_json(small_tokenizer());
  return *tokenizer;
}

std::shared_ptr<const GrammarVocabulary> small_vocabulary() {
  static const auto vocabulary = GrammarVocabulary::make(small());
  return vocabulary;
}

std::shared_ptr<const Grammar> compile(std::string_view schema) {
  auto grammar = Grammar::json_schema(nlohmann::ordered_json::parse(schema), small_vocabulary());
  EXPECT_TRUE(grammar.ok()) << schema << "\n" << grammar.status().message();
  return grammar.ok() ? std::move(grammar).value() : nullptr;
}

std::string refusal(std::string_view schema, const SchemaLimits& limits) {
  const auto grammar =
      Grammar::json_schema(nlohmann::ordered_json::parse(schema), small_vocabulary(), limits);
  if (grammar.ok()) return {};
  EXPECT_EQ(grammar.status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(grammar.status().field(), "schema");
  EXPECT_TRUE(grammar.status().message().starts_with("schema ")) << grammar.status().message();
  return grammar.status().message();
}

std::size_t accepted_prefix(const std::shared_ptr<const Grammar>& grammar, std::string_view text) {
  GrammarMatcher matcher(grammar);
  std::size_t taken = 0;
  while (taken < text.size() && matcher.accept(static_cast<unsigned char>(text[taken]))) ++taken;
  return taken;
}

bool accepts(const std::shared_ptr<const Grammar>& grammar, std::string_view text) {
  GrammarMatcher matcher(grammar);
  for (const char c : text) {
    if (!matcher.accept(static_cast<unsigned char>(c))) return false;
  }
  return matcher.can_end();
}

std::vector<std::int32_t> allowed(GrammarMatcher& matcher, const Tokenizer& tokenizer) {
  std::vector<std::uint32_t> mask((static_cast<std::size_t>(tokenizer.vocab_size()) + 31) / 32);
  matcher.fill_mask(mask);
  std::vector<std::int32_t> out;
  for (std::size_t i = 0; i < 32 * mask.size(); ++i) {
    if ((mask[i / 32] >> (i % 32) & 1U) != 0) out.push_back(static_cast<std::int32_t>(i));
  }
  return out;
}

}  // namespace mobius
