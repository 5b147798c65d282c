#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/grammar/grammar.h"
#include "engine/status.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/generation_options.h"
#include "server/tools/tools.h"

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

  /// The same for an answer that may call tools (server/tools/tools.h). A tool that is not strict
  /// and whose schema is more than grammars know gets any object as its arguments; a strict one is
  /// refused with the field "tools[0].function.parameters".
  StatusOr<std::shared_ptr<const Grammar>> get(std::vector<Tool> tools, const ToolChoice& choice,
                                               bool parallel, const ResponseFormat& format);

 private:
  struct Kept {
    std::string key;
    std::shared_ptr<const Grammar> grammar;
    std::size_t bytes = 0;
  };

  std::shared_ptr<const GrammarVocabulary> vocabulary();
  StatusOr<std::shared_ptr<const Grammar>> compile(const std::string& schema,
                                                   const GrammarForms& forms);
  std::shared_ptr<const Grammar> find(const std::string& key);
  void keep(std::string key, const std::shared_ptr<const Grammar>& grammar);

  const Tokenizer* tokenizer_;
  std::once_flag once_;
  std::shared_ptr<const GrammarVocabulary> vocabulary_;
  std::shared_ptr<const Grammar> json_object_;
  std::mutex mutex_;      // of kept_
  std::list<Kept> kept_;  // used last first
};

}  // namespace mobius
