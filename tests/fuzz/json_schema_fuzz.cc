// A JSON Schema; what comes after its first NUL byte chooses tokens of the grammar that it becomes.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/grammar/grammar.h"
#include "server/json.h"
#include "tests/fuzz/target.h"
#include "tests/unit/tokenizer/fixtures.h"

namespace mobius {
namespace {

const Tokenizer& tokenizer() {
  static const std::shared_ptr<const Tokenizer> small = load_json(small_tokenizer());
  return *small;
}

std::vector<std::int32_t> allowed(GrammarMatcher& matcher) {
  const auto tokens = static_cast<std::size_t>(tokenizer().vocab_size());
  std::vector<std::uint32_t> mask((tokens + 31) / 32);
  matcher.fill_mask(mask);
  std::vector<std::int32_t> out;
  for (std::size_t i = 0; i < 32 * mask.size(); ++i) {
    if ((mask[i / 32] >> (i % 32) & 1U) == 0) continue;
    require(i < tokens, "no token beyond the vocabulary is allowed");
    out.push_back(static_cast<std::int32_t>(i));
  }
  return out;
}

/// Writes as a model would that wants what `choices` say.
void walk(std::shared_ptr<const Grammar> grammar, std::string_view choices) {
  GrammarMatcher matcher(std::move(grammar));
  std::string text;
  for (const char choice : choices) {
    const std::vector<std::int32_t> tokens = allowed(matcher);
    require(!tokens.empty() || matcher.can_end(), "there is always a way on, or an end");
    require(tokens.empty() == matcher.must_end(), "what must end allows nothing");
    if (matcher.can_end()) {
      require(nlohmann::json::accept(text), "what may end is JSON");
    }
    if (tokens.empty()) return;
    const std::int32_t token = tokens[static_cast<unsigned char>(choice) % tokens.size()];
    require(matcher.accept(token), "what the mask allows is taken");
    text += tokenizer().bytes(token);
    const GrammarMatcher copy = matcher;
    const std::int32_t special = *tokenizer().special("<|eot_id|>");
    require(!matcher.accept(special), "special tokens are not part of a text");
    require(copy.can_end() == matcher.can_end(), "what is refused changes nothing");
  }
}

}  // namespace
}  // namespace mobius

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace mobius;
  static const auto vocabulary = GrammarVocabulary::make(tokenizer());
  const std::string_view input = as_text(data, size);
  const std::size_t nul = input.find('\0');
  nlohmann::ordered_json schema;
  std::string error;
  if (!parse_json(input.substr(0, nul), {}, schema, error)) {
    require_one_line(error);
    return 0;
  }
  // Smaller than the server's, so that an input takes no second.
  SchemaLimits limits;
  limits.schemas = 500;
  limits.states = 20'000;
  limits.pattern_states = 500;
  const auto grammar = Grammar::json_schema(schema, vocabulary, limits);
  if (!grammar.ok()) {
    require(grammar.status().code() == StatusCode::invalid_argument, "a refusal is the schema's");
    require_one_line(grammar.status().message());
    require(grammar.status().message().size() < 4096, "a message is short");
    return 0;
  }
  constexpr std::size_t kMostSteps = 256;
  walk(grammar.value(), nul == std::string_view::npos ? std::string_view("\0\1\2\3", 4)
                                                      : input.substr(nul + 1, kMostSteps));
  return 0;
}
