#include "server/grammar_cache.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/json.h"

namespace mobius {
namespace {

// Masks that a grammar finds in use come on top: 16 KB for each of its states that allow much.
constexpr std::size_t kMaxKept = 64;
constexpr std::size_t kMaxBytes = std::size_t{64} << 20U;
// Of one schema: its text is parsed again here, and compiling it takes a tokenizer thread.
constexpr std::size_t kMaxSchemaBytes = std::size_t{256} << 10U;

constexpr const char* kField = "response_format.schema";

}  // namespace

StatusOr<std::shared_ptr<const Grammar>> GrammarCache::get(const ResponseFormat& format) {
  if (format.kind == ResponseFormat::Kind::text) return std::shared_ptr<const Grammar>();
  auto vocabulary = this->vocabulary();
  if (format.kind == ResponseFormat::Kind::json_object) return json_object_;
  if (auto known = find(format.schema)) return known;
  if (format.schema.size() > kMaxSchemaBytes) {
    return Status::invalid(kField,
                           std::string(kField) + " has " + std::to_string(format.schema.size()) +
                               " bytes, must have at most " + std::to_string(kMaxSchemaBytes));
  }
  nlohmann::ordered_json schema;
  std::string error;
  if (!parse_json(format.schema, {}, schema, error)) {
    return Status::invalid(kField, std::string(kField) + " is not valid JSON: " + error);
  }
  auto grammar = Grammar::json_schema(schema, std::move(vocabulary));
  if (!grammar.ok()) return grammar.status().with_field(kField);
  keep(format.schema, grammar.value());
  return grammar;
}

std::shared_ptr<const GrammarVocabulary> GrammarCache::vocabulary() {
  std::call_once(once_, [this] {
    vocabulary_ = GrammarVocabulary::make(*tokenizer_);
    json_object_ = Grammar::json_object(vocabulary_);
  });
  return vocabulary_;
}

std::shared_ptr<const Grammar> GrammarCache::find(const std::string& schema) {
  const std::scoped_lock lock(mutex_);
  const auto found = std::ranges::find(kept_, schema, &Kept::schema);
  if (found == kept_.end()) return nullptr;
  kept_.splice(kept_.begin(), kept_, found);
  return found->grammar;
}

void GrammarCache::keep(std::string schema, const std::shared_ptr<const Grammar>& grammar) {
  const std::size_t bytes = schema.size() + grammar->bytes();
  const std::scoped_lock lock(mutex_);
  kept_.push_front({std::move(schema), grammar, bytes});
  std::size_t total = 0;
  auto last = kept_.begin();
  for (std::size_t count = 0; last != kept_.end() && count < kMaxKept; ++last, ++count) {
    total += last->bytes;
    if (total > kMaxBytes) break;
  }
  kept_.erase(last, kept_.end());
}

}  // namespace mobius
