#include "server/grammar_cache.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/json.h"

namespace mobius {
namespace {

constexpr std::size_t kMaxKept = 64;
constexpr std::size_t kMaxBytes = std::size_t{64} << 20U;
// Of one schema: its text is parsed again here, and compiling it takes a tokenizer thread.
constexpr std::size_t kMaxSchemaBytes = std::size_t{256} << 10U;

constexpr const char* kField = "response_format.schema";

/// What a compiled grammar is found by.
std::string key_of(const std::string& schema, const GrammarForms& forms) {
  return schema + '\n' + forms.values + '\n' + forms.other + '\n' + (forms.several ? "s" : "") +
         (forms.text ? "t" : "");
}

/// Drops those used longest ago. They grow in use, by the masks of their states.
template <typename List>
void trim(List& kept) {
  std::size_t total = 0;
  auto last = kept.begin();
  for (std::size_t count = 0; last != kept.end() && count < kMaxKept; ++last, ++count) {
    total += last->bytes + last->grammar->bytes();
    if (total > kMaxBytes && count > 0) break;
  }
  kept.erase(last, kept.end());
}

}  // namespace

StatusOr<std::shared_ptr<const Grammar>> GrammarCache::get(const ResponseFormat& format) {
  if (format.kind == ResponseFormat::Kind::text) return std::shared_ptr<const Grammar>();
  const auto vocabulary = this->vocabulary();
  if (format.kind == ResponseFormat::Kind::json_object) return json_object_;
  auto grammar = compile(format.schema, {});
  if (!grammar.ok()) return grammar.status().with_field(kField);
  return grammar;
}

StatusOr<std::shared_ptr<const Grammar>> GrammarCache::get(std::vector<Tool> tools,
                                                           const ToolChoice& choice, bool parallel,
                                                           const ResponseFormat& format) {
  const auto first = call_grammar(tools, choice, parallel, format);
  if (!first.ok()) return first.status();
  if (!first.value().has_value()) return get(format);
  auto grammar = compile(first.value()->schema, first.value()->forms);
  if (grammar.ok()) return grammar;

  // Whose fault is it?
  bool changed = false;
  for (std::size_t i = 0; i < tools.size(); ++i) {
    const auto alone = compile(tools[i].parameters, {});
    if (alone.ok()) continue;
    if (tools[i].strict) {
      return alone.status().with_field("tools[" + std::to_string(i) + "].function.parameters");
    }
    changed = changed || tools[i].parameters != kAnyArguments;
    tools[i].parameters = kAnyArguments;
  }
  if (!changed) {
    const auto answer = get(format);
    return answer.ok() ? grammar.status().with_field("tools") : answer.status();
  }
  return get(std::move(tools), choice, parallel, format);
}

/// Field "schema", where it refuses.
StatusOr<std::shared_ptr<const Grammar>> GrammarCache::compile(const std::string& schema,
                                                               const GrammarForms& forms) {
  const std::string key = key_of(schema, forms);
  if (auto known = find(key)) return known;
  const auto refuse = [](const std::string& problem) {
    return Status::invalid("schema", "schema " + problem);
  };
  if (schema.size() > kMaxSchemaBytes) {
    return refuse("has " + std::to_string(schema.size()) + " bytes, must have at most " +
                  std::to_string(kMaxSchemaBytes));
  }
  nlohmann::ordered_json json;
  std::string error;
  if (!parse_json(schema, {}, json, error)) return refuse("is not valid JSON: " + error);
  auto grammar = Grammar::json_schema(json, vocabulary(), {}, forms);
  if (grammar.ok()) keep(key, grammar.value());
  return grammar;
}

std::shared_ptr<const GrammarVocabulary> GrammarCache::vocabulary() {
  std::call_once(once_, [this] {
    vocabulary_ = GrammarVocabulary::make(*tokenizer_);
    json_object_ = Grammar::json_object(vocabulary_);
  });
  return vocabulary_;
}

std::shared_ptr<const Grammar> GrammarCache::find(const std::string& key) {
  const std::scoped_lock lock(mutex_);
  const auto found = std::ranges::find(kept_, key, &Kept::key);
  if (found == kept_.end()) return nullptr;
  kept_.splice(kept_.begin(), kept_, found);
  trim(kept_);
  return kept_.front().grammar;
}

void GrammarCache::keep(std::string key, const std::shared_ptr<const Grammar>& grammar) {
  const std::size_t bytes = key.size();
  const std::scoped_lock lock(mutex_);
  kept_.push_front({std::move(key), grammar, bytes});
  trim(kept_);
}

}  // namespace mobius
