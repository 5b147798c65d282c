#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/client_shares.h"
#include "engine/kv_pages.h"
#include "engine/prefix_cache.h"
#include "engine/sequence_pages.h"

namespace mobius {

/// Names a sequence: its place in the order of arrival. Never used twice.
using SequenceId = std::int64_t;

struct SchedulerLimits {
  std::int32_t max_running = 0;  ///< sequences that share steps; at most step_rows
  std::int32_t step_rows = 0;    ///< rows of one step
  std::int32_t page_tokens = 0;
  std::int32_t num_pages = 0;
  /// Rows of one step whose logits can be computed, at least max_running.
  std::int32_t logit_rows = std::numeric_limits<std::int32_t>::max();
};

/// What the scheduler has to know of a request.
struct SequenceSpec {
  SequenceId id = 0;
  std::int32_t prompt_tokens = 0;
  std::int32_t priority = 0;  ///< lower goes first
  std::string client = {};    ///< who shares fairly with others; empty is a client too
  RowAttention prompt_rows = {};
  RowAttention generated_rows = {};
  /// Logits of every prompt row are wanted: all are computed, none come from the prefix cache.
  bool scores_prompt = false;
};

/// Consecutive tokens of one sequence that a step computes: all prompt or all generated, because
/// the two have attention policies of their own.
struct PlannedSlice {
  SequenceId sequence = 0;
  std::int32_t first = 0;  ///< position of the first token
  std::int32_t count = 0;
  bool prompt = false;            ///< prompt tokens, else generated ones
  bool samples = false;           ///< a new token is drawn from the last row
  std::span<const PageId> pages;  ///< covers first + count tokens; valid until the next call
};

/// Decides what each step computes and which pages it uses. Pure logic: no clock, no threads; the
/// same calls give the same plans. Not thread-safe.
///
/// Sequences wait, run, and leave. Who is next, and who gives way when pages run out, is said in
/// README.md, "How a step is planned"; in short: promoted ones, then by priority, then by arrival.
/// The first of that order among the running always moves, and every fourth admission promotes
/// whoever has waited longest: nothing starves.
///
///   add -> waiting -> running -> remove
///             ^----------'  preempted: its pages are gone, its tokens stay and are computed again
class Scheduler {
 public:
  /// Prompt and generated tokens of a sequence, as many as the scheduler has been told of.
  using TokensOf = std::function<std::span<const std::int32_t>(SequenceId)>;
  static constexpr std::int32_t kNoLimit = std::numeric_limits<std::int32_t>::max();

  /// With `tokens_of`, sequences share the pages of a common beginning, and pages stay findable
  /// after their sequence until somebody needs them; `hash_key` as in PrefixCache. Without it there
  /// is no prefix cache.
  explicit Scheduler(const SchedulerLimits& limits, TokensOf tokens_of = {},
                     std::uint64_t hash_key = 0);

  /// The longest sequence, prompt and generated tokens together, that fits when it runs alone.
  std::int64_t capacity() const;

  /// Appends a waiting sequence. `id` is higher than all before, `prompt_tokens` at least 1 and
  /// less than capacity(). The caller removes it before it grows past capacity().
  void add(const SequenceSpec& spec);

  /// Plans the next step, taking pages and preempting as needed. Never empty while there are
  /// sequences. Where a sequence decodes, the others get at most `prefill_rows` rows beside it.
  /// `finish_step` must follow before the next plan; sequences may be removed between the two only
  /// after `finish_step`.
  std::span<const PlannedSlice> plan(std::int32_t prefill_rows = kNoLimit);

  /// The planned rows are in the cache, and each slice that samples has got one more token.
  void finish_step();

  /// Forgets a sequence, running or waiting, and gives its pages back. False if it is not known.
  bool remove(SequenceId id);

  std::int32_t running() const { return static_cast<std::int32_t>(running_.size()); }
  std::int32_t waiting() const { return static_cast<std::int32_t>(waiting_.size()); }
  /// Tokens of those that wait.
  std::int64_t waiting_tokens() const;
  bool is_running(SequenceId id) const;
  std::int64_t preemptions() const { return preemptions_; }
  const KvPages& pages() const { return pages_; }
  /// Where there is a prefix cache: from now on it notes changes, and what it noted since the last
  /// call. Nothing without one.
  void record_cache_events();
  std::vector<CacheEvent> take_cache_events();
  /// nullptr where there is none.
  const PrefixCache* prefix_cache() const { return cache_ ? &*cache_ : nullptr; }

  /// Empty, or one line about the first thing that is wrong. For tests.
  std::string check_invariants() const;

 private:
  struct Entry {
    Entry(const SequenceSpec& spec, ClientShares::Handle of, KvPages& kv, PrefixCache* cache,
          std::int32_t page_tokens)
        : id(spec.id),
          prompt(spec.prompt_tokens),
          priority(spec.priority),
          client(of),
          scores_prompt(spec.scores_prompt),
          pages(kv, cache, page_tokens, spec.prompt_tokens, spec.prompt_rows, spec.generated_rows,
                !spec.scores_prompt) {}

    SequenceId id;
    std::int32_t prompt;         // tokens
    std::int32_t generated = 0;  // tokens drawn so far
    std::int32_t computed = 0;   // tokens whose keys and values are in the pages
    std::int32_t priority;
    ClientShares::Handle client;
    bool running = false;
    bool promoted = false;     // waited longest when it was its turn: before all others for life
    bool charged = false;      // its prompt counts among what its client has had
    bool resumes = false;      // was preempted: before others of its kind that have not begun
    bool overtook = false;     // was admitted before somebody for whom there was no room
    bool scores_prompt;        // needs the logits of every prompt row
    std::int32_t wanted = 0;   // scratch of plan_prefills: rows that it can take
    std::int32_t granted = 0;  // ... and gets
    SequencePages pages;

    std::int32_t known() const { return prompt + generated; }
    std::int32_t remaining() const { return known() - computed; }
    bool decoding() const { return generated > 0 && remaining() == 1; }
    // Rows that the next slice may have: it must not cross from prompt to generated tokens.
    std::int32_t sliceable() const { return (computed < prompt ? prompt : known()) - computed; }
  };

  static bool before(const Entry* a, const Entry* b);
  static bool in_turn(const Entry* a, const Entry* b);
  std::int32_t pages_for(std::int64_t tokens) const;
  std::span<const std::int32_t> tokens(const Entry& entry) const;

  void admit();
  Entry& next_waiting();
  bool fits(Entry& entry, std::span<Entry* const> without);
  bool make_room(Entry& entry);
  void overtake(const Entry& blocked);
  void start(Entry& entry);
  void preempt(Entry& entry);

  void reuse_pages();
  std::int32_t plan_decodes();
  void plan_prefills(std::int32_t rows);
  void find_prefills();
  static std::int32_t grant(std::span<Entry* const> entries, std::int32_t rows);
  void join_equal_work();
  void take_rows(Entry& entry);
  void add_slice(const Entry& entry, std::int32_t count);

  SchedulerLimits limits_;
  TokensOf tokens_of_;
  KvPages pages_;
  std::optional<PrefixCache> cache_;
  ClientShares clients_;
  std::map<SequenceId, Entry> sequences_;
  std::vector<Entry*> running_;  // in the order of `before`
  std::vector<Entry*> waiting_;  // by arrival
  std::int64_t admissions_ = 0;
  std::int64_t preemptions_ = 0;
  std::vector<PlannedSlice> plan_;
  std::vector<Entry*> victims_, candidates_;  // scratch of admit
  std::vector<bool> held_;                    // by page; scratch of fits
  std::vector<Entry*> prefilling_, by_work_;  // scratch of plan_prefills
  std::vector<std::pair<std::uint64_t, Entry*>> pages_in_work_;
};

}  // namespace mobius
