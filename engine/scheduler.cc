#include "engine/scheduler.h"

#include <algorithm>
#include <cassert>
#include <stdexcept>
#include <utility>

namespace mobius {

Scheduler::Scheduler(const SchedulerLimits& limits) : limits_(limits), pages_(limits.num_pages) {
  if (limits.max_running < 1 || limits.step_rows < limits.max_running || limits.page_tokens < 1 ||
      limits.num_pages < 1) {
    throw std::invalid_argument("scheduler: limits must be positive and max_running <= step_rows");
  }
  plan_.reserve(static_cast<std::size_t>(limits.max_running));
}

std::int64_t Scheduler::capacity() const {
  return static_cast<std::int64_t>(limits_.num_pages) * limits_.page_tokens;
}

std::int32_t Scheduler::pages_for(std::int64_t tokens) const {
  return static_cast<std::int32_t>((tokens + limits_.page_tokens - 1) / limits_.page_tokens);
}

void Scheduler::add(SequenceId id, std::int32_t prompt_tokens) {
  assert(sequences_.empty() || id > sequences_.back().id);
  assert(prompt_tokens >= 1 && prompt_tokens < capacity());
  sequences_.push_back({id, prompt_tokens, 0, 0, PageList(pages_)});
}

std::span<const PlannedSlice> Scheduler::plan() {
  plan_.clear();
  admit();
  plan_decodes();
  plan_prefills(limits_.step_rows - static_cast<std::int32_t>(plan_.size()));
  for (PlannedSlice& slice : plan_) {
    const auto entry = std::ranges::lower_bound(sequences_, slice.sequence, {}, &Entry::id);
    slice.pages = entry->pages.ids();
  }
  assert(!plan_.empty() || sequences_.empty());
  return plan_;
}

void Scheduler::admit() {
  // What running sequences will need for the tokens that they have already, whether taken or not.
  std::int32_t committed = 0;
  for (std::int32_t i = 0; i < running_; ++i) {
    const Entry& entry = sequences_[static_cast<std::size_t>(i)];
    committed += std::max(entry.pages.size(), pages_for(entry.known()));
  }
  while (waiting() > 0 && running_ < limits_.max_running) {
    const std::int32_t need = pages_for(sequences_[static_cast<std::size_t>(running_)].known());
    // One more page for everybody, so that at least page_tokens steps lie between an admission and
    // the next preemption. Alone there is nobody to thrash with.
    const std::int32_t spare = running_ == 0 ? 0 : running_ + 1;
    if (committed + need + spare > limits_.num_pages) break;
    committed += need;
    ++running_;
  }
}

void Scheduler::plan_decodes() {
  for (std::int32_t i = 0; i < running_; ++i) {
    Entry& entry = sequences_[static_cast<std::size_t>(i)];
    if (!entry.decoding()) continue;
    while (i < running_ && !entry.pages.grow_to(pages_for(entry.known()))) preempt_youngest();
    if (i < running_) add_slice(entry, 1);
  }
}

void Scheduler::plan_prefills(std::int32_t rows) {
  prefilling_.clear();
  for (std::int32_t i = 0; i < running_; ++i) {
    if (!sequences_[static_cast<std::size_t>(i)].decoding()) prefilling_.push_back(i);
  }
  if (prefilling_.empty() || rows == 0) return;

  // Half of the rows go to the sequences with the least left to do, the rest by age.
  grants_.assign(static_cast<std::size_t>(running_), 0);
  const auto grant = [&](std::int32_t budget) {
    for (const std::int32_t index : prefilling_) {
      std::int32_t& granted = grants_[static_cast<std::size_t>(index)];
      const std::int32_t more =
          std::min(budget, sequences_[static_cast<std::size_t>(index)].sliceable() - granted);
      granted += more;
      budget -= more;
    }
    return budget;
  };
  const std::int32_t half = rows / 2;
  std::ranges::sort(prefilling_, {}, [&](std::int32_t index) {
    return std::pair(sequences_[static_cast<std::size_t>(index)].remaining(), index);
  });
  const std::int32_t unused = grant(half);
  std::ranges::sort(prefilling_);
  grant(rows - half + unused);

  for (const std::int32_t index : prefilling_) {
    if (index >= running_) break;  // preempted, and so are all after it
    Entry& entry = sequences_[static_cast<std::size_t>(index)];
    std::int32_t count = grants_[static_cast<std::size_t>(index)];
    if (count == 0) continue;
    // Younger sequences give way. The youngest itself keeps what it has and waits: its work is not
    // lost, and whoever is older can still take its pages.
    while (!entry.pages.grow_to(pages_for(entry.computed + count))) {
      if (index + 1 < running_) {
        preempt_youngest();
        continue;
      }
      const std::int64_t reachable =
          static_cast<std::int64_t>(entry.pages.size() + pages_.available()) * limits_.page_tokens;
      count = static_cast<std::int32_t>(std::min<std::int64_t>(count, reachable - entry.computed));
    }
    if (count > 0) add_slice(entry, count);
  }
}

void Scheduler::preempt_youngest() {
  Entry& entry = sequences_[static_cast<std::size_t>(--running_)];
  entry.pages.clear();
  entry.computed = 0;
  ++preemptions_;
  std::erase_if(plan_, [&](const PlannedSlice& slice) { return slice.sequence == entry.id; });
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
    const auto entry = std::ranges::lower_bound(sequences_, slice.sequence, {}, &Entry::id);
    entry->computed += slice.count;
    if (slice.samples) ++entry->generated;
  }
  plan_.clear();
}

bool Scheduler::remove(SequenceId id) {
  const auto entry = std::ranges::lower_bound(sequences_, id, {}, &Entry::id);
  if (entry == sequences_.end() || entry->id != id) return false;
  if (entry - sequences_.begin() < running_) --running_;
  sequences_.erase(entry);
  return true;
}

std::string Scheduler::check_invariants() const {
  std::vector<const PageList*> lists;
  for (std::size_t i = 0; i < sequences_.size(); ++i) {
    const Entry& entry = sequences_[i];
    const std::string name = "sequence " + std::to_string(entry.id);
    lists.push_back(&entry.pages);
    if (i > 0 && entry.id <= sequences_[i - 1].id) return name + " is out of order";
    if (entry.computed < 0 || entry.computed > entry.known()) return name + " computed too much";
    if (entry.known() > entry.prompt && entry.computed == entry.known()) {
      return name + " has nothing to compute";
    }
    if (i >= static_cast<std::size_t>(running_) && (entry.pages.size() > 0 || entry.computed > 0)) {
      return name + " waits but holds pages";
    }
    if (entry.pages.size() < pages_for(entry.computed)) return name + " lost pages";
  }
  if (running_ < 0 || running_ > limits_.max_running) {
    return std::to_string(running_) + " sequences run";
  }
  return pages_.check_invariants(lists);
}

}  // namespace mobius
