#include "engine/scheduler.h"

#include <algorithm>
#include <cassert>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace mobius {
namespace {

/// One of so many admissions goes to whoever has waited longest, whatever its priority and client.
constexpr std::int64_t kTurns = 4;

/// Whoever waits for pages is overtaken only by sequences that are so many times shorter, so that
/// little work is lost when they give way; and so many of those that wait are looked at for it.
constexpr std::int32_t kShorter = 8;
constexpr std::ptrdiff_t kCandidates = 64;

template <class Entries, class Before>
void insert_sorted(Entries& entries, typename Entries::value_type entry, Before before) {
  entries.insert(std::ranges::upper_bound(entries, entry, before), entry);
}

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, TokensOf tokens_of, std::uint64_t hash_key)
    : limits_(limits), tokens_of_(std::move(tokens_of)), pages_(limits.num_pages) {
  if (limits.max_running < 1 || limits.step_rows < limits.max_running || limits.page_tokens < 1 ||
      limits.num_pages < 1 || limits.logit_rows < limits.max_running) {
    throw std::invalid_argument(
        "scheduler: limits must be positive and max_running <= step_rows, logit_rows");
  }
  if (tokens_of_) cache_.emplace(pages_, hash_key);
  const auto most = static_cast<std::size_t>(limits.max_running);
  plan_.reserve(most);
  running_.reserve(most);
  prefilling_.reserve(most);
  by_work_.reserve(most);
  pages_in_work_.reserve(most);
}

void Scheduler::record_cache_events() {
  if (cache_) cache_->record_events();
}

std::vector<CacheEvent> Scheduler::take_cache_events() {
  return cache_ ? cache_->take_events() : std::vector<CacheEvent>{};
}

std::int64_t Scheduler::capacity() const {
  return static_cast<std::int64_t>(limits_.num_pages) * limits_.page_tokens;
}

std::int32_t Scheduler::pages_for(std::int64_t tokens) const {
  return static_cast<std::int32_t>((tokens + limits_.page_tokens - 1) / limits_.page_tokens);
}

std::span<const std::int32_t> Scheduler::tokens(const Entry& entry) const {
  if (!cache_) return {};
  return tokens_of_(entry.id).first(static_cast<std::size_t>(entry.known()));
}

/// The order in which running sequences get pages; the last gives way.
bool Scheduler::before(const Entry* a, const Entry* b) {
  return std::tuple(!a->promoted, a->priority, a->id) <
         std::tuple(!b->promoted, b->priority, b->id);
}

/// The order in which waiting sequences are admitted.
bool Scheduler::in_turn(const Entry* a, const Entry* b) {
  const auto key = [](const Entry* entry) {
    return std::tuple(!entry->promoted, entry->priority, !entry->resumes,
                      entry->client->second.served, entry->id);
  };
  return key(a) < key(b);
}

void Scheduler::add(const SequenceSpec& spec) {
  assert(sequences_.empty() || spec.id > sequences_.rbegin()->first);
  assert(spec.prompt_tokens >= 1 && spec.prompt_tokens < capacity());
  waiting_.reserve(waiting_.size() + 1);
  const auto client = clients_.enter(spec.client);
  try {
    const auto added = sequences_.try_emplace(spec.id, spec, client, pages_,
                                              cache_ ? &*cache_ : nullptr, limits_.page_tokens);
    waiting_.push_back(&added.first->second);
  } catch (...) {
    clients_.leave(client);
    throw;
  }
}

bool Scheduler::remove(SequenceId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return false;
  std::erase(found->second.running ? running_ : waiting_, &found->second);
  clients_.leave(found->second.client);
  sequences_.erase(found);
  return true;
}

std::int64_t Scheduler::waiting_tokens() const {
  std::int64_t tokens = 0;
  for (const Entry* entry : waiting_) tokens += entry->known();
  return tokens;
}

bool Scheduler::is_running(SequenceId id) const {
  const auto found = sequences_.find(id);
  return found != sequences_.end() && found->second.running;
}

std::span<const PlannedSlice> Scheduler::plan(std::int32_t prefill_rows) {
  plan_.clear();
  admit();
  reuse_pages();
  const std::int32_t decodes = plan_decodes();
  std::int32_t rows = limits_.step_rows - decodes;
  // At least one, so that a prompt moves whatever the limit.
  if (decodes > 0) rows = std::min(rows, std::max(prefill_rows, 1));
  plan_prefills(rows);
  for (PlannedSlice& slice : plan_) slice.pages = sequences_.at(slice.sequence).pages.ids();
  assert(!plan_.empty() || sequences_.empty());
  return plan_;
}

// ---- admission -----------------------------------------------------------------------------

Scheduler::Entry& Scheduler::next_waiting() {
  Entry* oldest = waiting_.front();
  if (admissions_ % kTurns == kTurns - 1) return *oldest;
  return **std::ranges::min_element(waiting_, in_turn);
}

/// Whether a sequence can run beside the others, those of `without` left out.
bool Scheduler::fits(Entry& entry, std::span<Entry* const> without) {
  const auto left = running() - static_cast<std::int32_t>(without.size());
  if (left >= limits_.max_running) return false;
  // Pages that the others need for the tokens that they have already, taken or not.
  std::int64_t committed = 0;
  const auto stays = [&](const Entry* other) {
    return std::ranges::find(without, other) == without.end();
  };
  for (const Entry* other : running_) {
    if (stays(other)) committed += std::max(0, pages_for(other->known()) - other->pages.size());
  }
  if (without.empty()) {
    committed += pages_.used();
  } else {
    held_.assign(static_cast<std::size_t>(limits_.num_pages), false);
    for (const Entry* other : running_) {
      if (!stays(other)) continue;
      for (const PageId page : other->pages.ids()) {
        if (held_[static_cast<std::size_t>(page)]) continue;
        held_[static_cast<std::size_t>(page)] = true;
        ++committed;
      }
    }
  }
  // One more page for everybody, so that at least page_tokens steps lie between an admission and
  // the next preemption. Alone there is nobody to thrash with.
  const std::int32_t spare = left == 0 ? 0 : left + 1;
  const std::int64_t needed = committed + pages_for(entry.known()) + spare;
  if (needed <= limits_.num_pages) return true;
  // Looking for shared pages takes time, so only where it matters.
  return needed - entry.pages.count_shared(tokens(entry), [&](PageId page) {
    return without.empty() ? pages_.count(page) > 0 : held_[static_cast<std::size_t>(page)];
  }) <= limits_.num_pages;
}

/// True if the sequence fits now, which may have taken that others give way: less important ones,
/// and those that have overtaken it. Nobody gives way in vain.
bool Scheduler::make_room(Entry& entry) {
  victims_.clear();
  if (fits(entry, victims_)) return true;
  for (Entry* other : running_) {
    const bool less = !other->promoted && other->priority > entry.priority;
    if (less || (other->overtook && before(&entry, other))) victims_.push_back(other);
  }
  if (victims_.empty() || !fits(entry, victims_)) return false;
  for (std::size_t i = 0; i < victims_.size();) {
    Entry* spared = victims_[i];
    victims_.erase(victims_.begin() + static_cast<std::ptrdiff_t>(i));
    if (fits(entry, victims_)) continue;
    victims_.insert(victims_.begin() + static_cast<std::ptrdiff_t>(i), spared);
    ++i;
  }
  for (Entry* victim : victims_) preempt(*victim);
  return true;
}

void Scheduler::admit() {
  while (!waiting_.empty()) {
    Entry& next = next_waiting();
    if (!make_room(next)) {
      overtake(next);
      return;
    }
    if (&next != *std::ranges::min_element(waiting_, in_turn)) next.promoted = true;
    start(next);
    ++admissions_;
  }
}

/// Short ones that fit beside the running ones go before a long one that does not. That one loses
/// nothing by it: they give way as soon as it fits without them.
void Scheduler::overtake(const Entry& blocked) {
  if (running() >= limits_.max_running || waiting_.size() < 2) return;
  candidates_.assign(waiting_.begin(), waiting_.end());
  const auto some = std::min(kCandidates, std::ssize(candidates_));
  std::ranges::partial_sort(candidates_, candidates_.begin() + some, in_turn);
  for (Entry* entry : std::span(candidates_).first(static_cast<std::size_t>(some))) {
    const bool shorter = std::int64_t{entry->known()} * kShorter <= blocked.known();
    if (!shorter || !fits(*entry, {})) continue;
    entry->overtook = true;
    start(*entry);
  }
}

void Scheduler::start(Entry& entry) {
  std::erase(waiting_, &entry);
  entry.running = true;
  insert_sorted(running_, &entry, before);
  entry.computed = entry.pages.reuse(tokens(entry)) * limits_.page_tokens;
  if (!std::exchange(entry.charged, true)) {
    entry.client->second.served += entry.prompt - entry.computed;
  }
}

void Scheduler::preempt(Entry& entry) {
  std::erase(running_, &entry);
  entry.running = false;
  entry.resumes = !std::exchange(entry.overtook, false);
  entry.pages.clear();
  entry.computed = 0;
  ++preemptions_;
  insert_sorted(waiting_, &entry, [](const Entry* a, const Entry* b) { return a->id < b->id; });
  std::erase_if(plan_, [&](const PlannedSlice& slice) { return slice.sequence == entry.id; });
}

// ---- rows ----------------------------------------------------------------------------------

/// Others may have computed what a sequence needs next since it began.
void Scheduler::reuse_pages() {
  if (!cache_) return;
  for (Entry* entry : running_) {
    if (entry->decoding() || entry->computed % limits_.page_tokens != 0) continue;
    entry->computed += entry->pages.reuse(tokens(*entry)) * limits_.page_tokens;
  }
}

std::int32_t Scheduler::plan_decodes() {
  for (std::size_t i = 0; i < running_.size(); ++i) {
    Entry& entry = *running_[i];
    if (!entry.decoding()) continue;
    while (entry.running && !entry.pages.grow_to(pages_for(entry.known()))) {
      preempt(*running_.back());
    }
    if (entry.running) add_slice(entry, 1);
  }
  return static_cast<std::int32_t>(plan_.size());
}

/// Who has more than its newest token to compute, and how many rows it can take.
void Scheduler::find_prefills() {
  prefilling_.clear();
  // Everybody may have a row with logits; the others go to prompts that want those of every row.
  std::int32_t spare_logits = limits_.logit_rows - running();
  for (Entry* entry : running_) {
    entry->granted = 0;
    if (entry->decoding()) continue;
    entry->wanted = entry->sliceable();
    if (entry->scores_prompt && entry->computed < entry->prompt) {
      entry->wanted = std::min(entry->wanted - 1, spare_logits) + 1;
      spare_logits -= entry->wanted - 1;
    }
    prefilling_.push_back(entry);
  }
}

void Scheduler::plan_prefills(std::int32_t rows) {
  find_prefills();
  if (prefilling_.empty() || rows == 0) return;

  // Half of the rows go to the sequences with the least left to do, the rest by rank.
  by_work_.assign(prefilling_.begin(), prefilling_.end());
  std::ranges::sort(by_work_, {},
                    [](const Entry* entry) { return std::pair(entry->remaining(), entry->id); });
  const std::int32_t half = rows / 2;
  const std::int32_t unused = grant(by_work_, half);
  grant(prefilling_, rows - half + unused);
  join_equal_work();
  for (Entry* entry : prefilling_) {
    if (entry->running && entry->granted > 0) take_rows(*entry);
  }
}

std::int32_t Scheduler::grant(std::span<Entry* const> entries, std::int32_t rows) {
  for (Entry* entry : entries) {
    const std::int32_t more = std::min(rows, entry->wanted - entry->granted);
    entry->granted += more;
    rows -= more;
  }
  return rows;
}

/// Of those that would compute the same page in this step, one gets the rows of all; the others
/// find the page when it is full. Whoever is inside the page goes on with it.
void Scheduler::join_equal_work() {
  if (!cache_ || prefilling_.size() < 2) return;
  pages_in_work_.clear();
  for (const bool inside : {true, false}) {
    for (Entry* entry : prefilling_) {
      if (entry->granted == 0 || (entry->computed % limits_.page_tokens != 0) != inside) continue;
      const auto name = entry->pages.next_page(tokens(*entry), entry->computed);
      if (!name) continue;
      const auto same =
          std::ranges::find(pages_in_work_, *name, &std::pair<std::uint64_t, Entry*>::first);
      if (same == pages_in_work_.end()) {
        pages_in_work_.emplace_back(*name, entry);
      } else if (!inside) {
        Entry& other = *same->second;
        other.granted += std::min(entry->granted, other.wanted - other.granted);
        entry->granted = 0;
      }
    }
  }
}

/// Plans the granted rows. Sequences of lower rank give their pages for them. The last one itself
/// keeps what it has and waits: its work is not lost, and whoever is before it can still take its
/// pages.
void Scheduler::take_rows(Entry& entry) {
  std::int32_t count = entry.granted;
  while (!entry.pages.grow_to(pages_for(entry.computed + count))) {
    if (&entry != running_.back()) {
      preempt(*running_.back());
      continue;
    }
    const std::int64_t reachable =
        std::int64_t{entry.pages.size() + pages_.available() + pages_.idle()} * limits_.page_tokens;
    count = static_cast<std::int32_t>(std::min<std::int64_t>(count, reachable - entry.computed));
  }
  if (count > 0) add_slice(entry, count);
}

void Scheduler::add_slice(const Entry& entry, std::int32_t count) {
  PlannedSlice slice;
  slice.sequence = entry.id;
  slice.first = entry.computed;
  slice.count = count;
  slice.prompt = entry.computed < entry.prompt;
  slice.samples = entry.computed + count == entry.known();
  plan_.push_back(slice);
}

void Scheduler::finish_step() {
  for (const PlannedSlice& slice : plan_) {
    Entry& entry = sequences_.at(slice.sequence);
    entry.computed += slice.count;
    entry.pages.index(tokens(entry), entry.computed);
    if (!slice.samples) continue;
    ++entry.generated;
    ++entry.client->second.served;
  }
  plan_.clear();
}

std::string Scheduler::check_invariants() const {
  std::vector<const PageList*> lists;
  for (const auto& [id, entry] : sequences_) {
    const std::string name = "sequence " + std::to_string(id);
    lists.push_back(&entry.pages.list());
    if (entry.computed < 0 || entry.computed > entry.known()) return name + " computed too much";
    if (entry.generated > 0 && entry.computed == entry.known()) {
      return name + " has nothing to compute";
    }
    if (!entry.running && (entry.pages.size() > 0 || entry.computed > 0)) {
      return name + " waits but holds pages";
    }
    if (entry.pages.size() < pages_for(entry.computed)) return name + " lost pages";
    const auto& place = entry.running ? running_ : waiting_;
    if (std::ranges::count(place, &entry) != 1) return name + " is in the wrong place";
  }
  if (running_.size() + waiting_.size() != sequences_.size()) return "a sequence is in two places";
  if (running() > limits_.max_running) return std::to_string(running()) + " sequences run";
  if (!std::ranges::is_sorted(running_, before)) return "running sequences are out of order";
  if (!std::ranges::is_sorted(waiting_, {}, &Entry::id)) return "waiting ones are out of order";
  if (cache_) {
    std::string wrong = cache_->check_invariants();
    if (!wrong.empty()) return wrong;
  }
  return pages_.check_invariants(lists);
}

}  // namespace mobius
