#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/kv_pages.h"

namespace mobius {

/// Names a sequence: its place in the order of arrival. Never used twice.
using SequenceId = std::int64_t;

struct SchedulerLimits {
  std::int32_t max_running = 0;  ///< sequences that share steps; at most step_rows
  std::int32_t step_rows = 0;    ///< rows of one step
  std::int32_t page_tokens = 0;
  std::int32_t num_pages = 0;
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

/// Decides what each step computes and which pages it uses. Pure logic: no clock, no threads, no
/// tokens; the same calls give the same plans. Not thread-safe.
///
/// Sequences are kept in order of arrival; the first ones run, the others wait. Hence a sequence
/// never overtakes an older one for a place or for pages, and the oldest always moves: nothing
/// starves. See README.md, "How a step is planned".
///
///   add -> waiting -> running -> remove
///             ^----------'  preempted: its pages are gone, its tokens stay and are computed again
class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  /// The longest sequence, prompt and generated tokens together, that fits when it runs alone.
  std::int64_t capacity() const;

  /// Appends a waiting sequence. `id` is higher than all before, `prompt_tokens` at least 1 and
  /// less than capacity(). The caller removes it before it grows past capacity().
  void add(SequenceId id, std::int32_t prompt_tokens);

  /// Plans the next step, taking pages and preempting as needed. Never empty while there are
  /// sequences. `finish_step` must follow before the next plan; sequences may be removed between
  /// the two only after `finish_step`.
  std::span<const PlannedSlice> plan();

  /// The planned rows are in the cache, and each slice that samples has got one more token.
  void finish_step();

  /// Forgets a sequence, running or waiting, and frees its pages. False if it is not known.
  bool remove(SequenceId id);

  std::int32_t running() const { return running_; }
  std::int32_t waiting() const { return static_cast<std::int32_t>(sequences_.size()) - running_; }
  std::int64_t preemptions() const { return preemptions_; }
  const KvPages& pages() const { return pages_; }

  /// Empty, or one line about the first thing that is wrong. For tests.
  std::string check_invariants() const;

 private:
  struct Entry {
    SequenceId id;
    std::int32_t prompt;     // tokens
    std::int32_t generated;  // tokens drawn so far
    std::int32_t computed;   // tokens whose keys and values are in the pages
    PageList pages;

    std::int32_t known() const { return prompt + generated; }
    std::int32_t remaining() const { return known() - computed; }
    bool decoding() const { return generated > 0 && remaining() == 1; }
    // Rows that the next slice may have: it must not cross from prompt to generated tokens.
    std::int32_t sliceable() const { return (computed < prompt ? prompt : known()) - computed; }
  };

  std::int32_t pages_for(std::int64_t tokens) const;
  void admit();
  void plan_decodes();
  void plan_prefills(std::int32_t rows);
  void preempt_youngest();
  void add_slice(const Entry& entry, std::int32_t count);

  SchedulerLimits limits_;
  KvPages pages_;
  std::vector<Entry> sequences_;  // by id; the first running_ are running
  std::int32_t running_ = 0;
  std::int64_t preemptions_ = 0;
  std::vector<PlannedSlice> plan_;
  std::vector<std::int32_t> prefilling_, grants_;  // scratch of plan_prefills
};

}  // namespace mobius
