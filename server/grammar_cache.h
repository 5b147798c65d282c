#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "engine/grammar/grammar.h"
#include "engine/status.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/generation_options.h"

namespace mobius {

/// Compiles the formats that clients ask for and keeps those used last: a schema mostly comes again
/// and again. Thread-safe; compiling holds no lock.
class GrammarCache {
 public:
  /// `tokenizer` must outlive this.
  explicit GrammarCache(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  /// nullptr for text. Refuses with invalid_argument, field "response_format.schema". The first
  /// call that needs it arranges the vocabulary, which takes some ten milliseconds.
  StatusOr<std::shared_ptr<const Grammar>> get(const ResponseFormat& format);

 private:
  struct Kept {
    std::string schema;
    std::shared_ptr<const Grammar> grammar;
    std::size_t bytes = 0;
  };

  std::shared_ptr<const GrammarVocabulary> vocabulary();
  std::shared_ptr<const Grammar> find(const std::string& schema);
  void keep(std::string schema, const std::shared_ptr<const Grammar>& grammar);

  const Tokenizer* tokenizer_;
  std::once_flag once_;
  std::shared_ptr<const GrammarVocabulary> vocabulary_;
  std::shared_ptr<const Grammar> json_object_;
  std::mutex mutex_;      // of kept_
  std::list<Kept> kept_;  // used last first
};

}  // namespace mobius
