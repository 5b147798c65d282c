#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "engine/grammar/stack_sets.h"
#include "engine/status.h"
#include "engine/tokenizer/tokenizer.h"

namespace mobius {

/// A tokenizer's tokens, arranged for grammars, and what they have in common. Made once per
/// tokenizer (some ten milliseconds for 128,256 tokens); immutable, thread-safe.
class GrammarVocabulary {
 public:
  static std::shared_ptr<const GrammarVocabulary> make(const Tokenizer& tokenizer);
  ~GrammarVocabulary();
  GrammarVocabulary(const GrammarVocabulary&) = delete;
  GrammarVocabulary& operator=(const GrammarVocabulary&) = delete;

 private:
  GrammarVocabulary();
  struct Impl;
  std::unique_ptr<Impl> impl_;
  friend class Grammar;
  friend class GrammarMatcher;
};

/// What a schema may cost. Beyond it, it is refused by name.
struct SchemaLimits {
  std::size_t depth = 64;              ///< of schemas in schemas, references not followed
  std::size_t schemas = 10'000;        ///< translated ones; a referenced one counts once
  std::size_t states = 200'000;        ///< of the automaton that it becomes
  std::size_t pattern_states = 4'000;  ///< of one pattern's automaton
};

/// What the texts of a grammar are, beside one value of a schema. Places in the schema are JSON
/// pointers as URI fragments.
struct GrammarForms {
  std::string values = "#";  ///< where the values' schema is
  bool several = false;      ///< one or more of them, with ";" and white space between
  std::string other = {};  ///< where the schema of one other value is, which stands alone; or none
  bool text = false;       ///< also any text that does not begin, white space left out, with '{'
};

/// A language of JSON texts, compiled. Immutable but for what it caches; thread-safe, to be shared
/// between requests.
class Grammar {
 public:
  ~Grammar();
  Grammar(const Grammar&) = delete;
  Grammar& operator=(const Grammar&) = delete;

  /// Any JSON object.
  static std::shared_ptr<const Grammar> json_object(
      std::shared_ptr<const GrammarVocabulary> vocabulary);

  /// Values of a JSON Schema, 2020-12; README.md lists the keywords. Every other keyword is refused
  /// with invalid_argument, field "schema" and a message that begins "schema at #/properties/a: "
  /// (a JSON pointer as a URI fragment), names keyword, value and limit; so is a schema that no
  /// finite value meets. `schema` is an object or a boolean. O(its size), but for patterns (see
  /// README.md).
  static StatusOr<std::shared_ptr<const Grammar>> json_schema(
      const nlohmann::ordered_json& schema, std::shared_ptr<const GrammarVocabulary> vocabulary,
      const SchemaLimits& limits = {}, const GrammarForms& forms = {});

  /// Bytes that it holds by now, about; some 16 MiB may come on top in use.
  std::size_t bytes() const;

 private:
  friend class GrammarMatcher;
  struct Impl;
  explicit Grammar(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Follows one text through a grammar, token by token. It only goes forward; copies go on
/// independently of each other (the n answers of one prompt). Not thread-safe; matchers of one
/// grammar can be used by different threads.
class GrammarMatcher {
 public:
  explicit GrammarMatcher(std::shared_ptr<const Grammar> grammar);

  /// Goes on by a token. False, and nothing changes, if it is not allowed; special tokens and ids
  /// outside the vocabulary never are.
  bool accept(std::int32_t token);

  /// Writes the tokens that may come next: bit i of word i/32 for token i, all other bits 0. `mask`
  /// has words for at least the tokenizer's vocabulary. Where can_end(), the caller adds its end
  /// tokens; else at least one token is allowed, always.
  void fill_mask(std::span<std::uint32_t> mask);

  /// The text so far is a whole value.
  bool can_end() const { return sets_.may_end(front_); }
  /// It is, and nothing can follow it.
  bool must_end() const { return sets_.must_end(front_); }

 private:
  struct CachedMask {
    StackSets::Node front = StackSets::kDead;
    std::vector<std::uint32_t> mask;
  };

  void compute_mask(std::span<std::uint32_t> mask);

  std::shared_ptr<const Grammar> grammar_;
  StackSets sets_;
  StackSets::Node front_;
  std::vector<CachedMask> cache_;  // of expensive masks
  std::size_t next_cached_ = 0;
};

}  // namespace mobius
