#include "engine/grammar/grammar.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "engine/grammar/automaton.h"
#include "engine/grammar/json_rules.h"
#include "engine/grammar/local_tokens.h"
#include "engine/grammar/schema_compiler.h"
#include "engine/grammar/token_trie.h"

namespace mobius {
namespace {

// Beyond it a matcher forgets all but its present state: a text of a million tokens must not hold
// what every one of them led to.
constexpr std::size_t kMaxSets = 1U << 15U;

// Masks that a matcher keeps, of states that come again and again, such as a string's inside.
constexpr std::size_t kMaxCached = 16;

// What a grammar keeps of its states' tokens: a thousand masks of 128,256 tokens that differ.
constexpr std::size_t kMaxLocalBytes = std::size_t{16} << 20U;

/// With what a table of local tokens and sets of stacks have for each state.
std::size_t bytes_of(const Automaton& automaton) {
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < automaton.num_states(); ++i) {
    const AutomatonState& state = automaton.state(static_cast<GrammarState>(i));
    bytes += sizeof state + state.bytes.capacity() * sizeof(ByteEdge) +
             state.calls.capacity() * sizeof(CallEdge) +
             state.empties.capacity() * sizeof(GrammarState) + 2 * sizeof(void*);
  }
  return bytes;
}

}  // namespace

struct GrammarVocabulary::Impl {
  explicit Impl(const Tokenizer& tokenizer) : trie(tokenizer) {
    for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
      const bool none = tokenizer.is_special(id);
      offsets.push_back(bytes.size());
      if (!none) bytes += tokenizer.bytes(id);
    }
    offsets.push_back(bytes.size());
    const JsonRules rules = add_json_rules(common);
    common.finish(rules.value);
    local = std::make_unique<LocalTokenTable>(common, trie, kMaxLocalBytes);
    // The states that allow most of the vocabulary, so that no request waits for them.
    for (std::size_t i = 0; i < common.num_states(); ++i) {
      const auto state = static_cast<GrammarState>(i);
      LocalTokens scratch;
      if (!common.state(state).bytes.empty()) local->of(state, scratch);
    }
  }

  std::string_view bytes_of(std::int32_t token) const {
    if (token < 0 || static_cast<std::size_t>(token) + 1 >= offsets.size()) return {};
    const auto i = static_cast<std::size_t>(token);
    return std::string_view(bytes).substr(offsets[i], offsets[i + 1] - offsets[i]);
  }

  TokenTrie trie;
  std::string bytes;  // of all tokens
  std::vector<std::size_t> offsets;
  Automaton common;  // the JsonRules
  std::unique_ptr<LocalTokenTable> local;
};

GrammarVocabulary::GrammarVocabulary() = default;
GrammarVocabulary::~GrammarVocabulary() = default;

std::shared_ptr<const GrammarVocabulary> GrammarVocabulary::make(const Tokenizer& tokenizer) {
  std::shared_ptr<GrammarVocabulary> made(new GrammarVocabulary);
  made->impl_ = std::make_unique<Impl>(tokenizer);
  return made;
}

struct Grammar::Impl {
  Impl(Automaton given, std::shared_ptr<const GrammarVocabulary> given_vocabulary)
      : vocabulary(std::move(given_vocabulary)),
        automaton(std::move(given)),
        local(automaton, vocabulary->impl_->trie, kMaxLocalBytes),
        start(automaton),
        own_bytes(sizeof(Impl) + bytes_of(automaton)) {
    start_front = start.start();
  }

  const LocalTokens& local_tokens(GrammarState state, LocalTokens& scratch) const {
    const GrammarVocabulary::Impl& shared = *vocabulary->impl_;
    const bool common = static_cast<std::size_t>(state) < shared.common.num_states();
    return common ? shared.local->of(state, scratch) : local.of(state, scratch);
  }

  std::shared_ptr<const GrammarVocabulary> vocabulary;
  Automaton automaton;
  LocalTokenTable local;
  StackSets start;  // what every matcher begins as a copy of
  StackSets::Node start_front;
  std::size_t own_bytes;
};

Grammar::Grammar(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Grammar::~Grammar() = default;

std::shared_ptr<const Grammar> Grammar::json_object(
    std::shared_ptr<const GrammarVocabulary> vocabulary) {
  Automaton automaton;
  const JsonRules rules = add_json_rules(automaton);
  automaton.finish(rules.object);
  return std::shared_ptr<const Grammar>(
      new Grammar(std::make_unique<Impl>(std::move(automaton), std::move(vocabulary))));
}

StatusOr<std::shared_ptr<const Grammar>> Grammar::json_schema(
    const nlohmann::ordered_json& schema, std::shared_ptr<const GrammarVocabulary> vocabulary,
    const SchemaLimits& limits, const GrammarForms& forms) {
  StatusOr<Automaton> automaton = compile_schema(schema, limits, forms);
  if (!automaton.ok()) return automaton.status();
  return std::shared_ptr<const Grammar>(
      new Grammar(std::make_unique<Impl>(std::move(automaton).value(), std::move(vocabulary))));
}

std::size_t Grammar::bytes() const {
  return impl_->own_bytes + impl_->local.bytes();
}

GrammarMatcher::GrammarMatcher(std::shared_ptr<const Grammar> grammar)
    : grammar_(std::move(grammar)),
      sets_(grammar_->impl_->start),
      front_(grammar_->impl_->start_front) {}

bool GrammarMatcher::accept(std::int32_t token) {
  const std::string_view bytes = grammar_->impl_->vocabulary->impl_->bytes_of(token);
  if (bytes.empty()) return false;
  StackSets::Node front = front_;
  for (const char c : bytes) {
    front = sets_.step(front, static_cast<std::uint8_t>(c));
    if (front == StackSets::kDead) return false;
  }
  front_ = front;
  if (sets_.size() > kMaxSets) {
    front_ = sets_.compact(front_);
    cache_.clear();
    next_cached_ = 0;
  }
  return true;
}

void GrammarMatcher::fill_mask(std::span<std::uint32_t> mask) {
  for (const CachedMask& known : cache_) {
    if (known.front != front_) continue;
    std::ranges::copy(known.mask, mask.begin());
    std::ranges::fill(mask.subspan(known.mask.size()), 0U);
    return;
  }
  std::ranges::fill(mask, 0U);
  compute_mask(mask);
}

void GrammarMatcher::compute_mask(std::span<std::uint32_t> mask) {
  const Grammar::Impl& grammar = *grammar_->impl_;
  const TokenTrie& trie = grammar.vocabulary->impl_->trie;
  bool expensive = false;
  // By index: walking adds to the sets.
  for (std::size_t i = 0; i < sets_.entries(front_).size(); ++i) {
    const StackSets::Entry entry = sets_.entries(front_)[i];
    if (entry.state == StackSets::kEnd) continue;
    LocalTokens scratch;
    const LocalTokens& local = grammar.local_tokens(entry.state, scratch);
    for (std::size_t word = 0; word < local.mask.size(); ++word) mask[word] |= local.mask[word];
    set_tokens(mask, local.tokens);
    if (local.ends.empty()) continue;
    const StackSets::Node rest = sets_.resume(entry.below);
    // Tokens that end with the rule are among the state's own.
    if (sets_.must_end(rest)) continue;
    expensive = expensive || local.ends.size() > 32;
    for (const std::int32_t node : local.ends) {
      trie.walk(
          node, sets_, rest,
          [&](std::span<const std::int32_t> tokens) { set_tokens(mask, tokens); },
          [](std::int32_t) {});
    }
  }
  if (!expensive) return;
  CachedMask made;
  made.front = front_;
  const auto words = (static_cast<std::size_t>(trie.vocab_size()) + 31) / 32;
  made.mask.assign(mask.begin(), mask.begin() + static_cast<std::ptrdiff_t>(words));
  if (cache_.size() < kMaxCached) {
    cache_.push_back(std::move(made));
  } else {
    cache_[next_cached_] = std::move(made);
    next_cached_ = (next_cached_ + 1) % kMaxCached;
  }
}

}  // namespace mobius
