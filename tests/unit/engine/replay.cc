#include "tests/unit/engine/replay.h"

#include <algorithm>
#include <map>
#include <set>
#include <span>

#include "engine/chunk_sizer.h"

namespace mobius {
namespace {

using std::chrono::nanoseconds;

// A page of equal work may take its leader this long, while the oldest waits for it.
constexpr std::int64_t kLongestPause = 64;

class Player {
 public:
  Player(const std::vector<TraceRequest>& trace, const ReplayOptions& options)
      : trace_(trace),
        options_(options),
        sizer_(options.itl_target, options.limits.step_rows),
        scheduler_(options.limits, tokens_of(), 1) {}

  ReplayResult play() {
    // The ideal cache knows prompts alone, as the trace does.
    const std::int32_t scale = kTraceBlock / options_.block_tokens;
    for (const std::int32_t hit : ideal_hits(trace_, options_.limits.page_tokens * scale)) {
      result_.ideal_tokens += hit / scale;
    }
    result_.ttft.resize(trace_.size());
    while (result_.violation.empty() && (next_ < trace_.size() || !live_.empty())) {
      arrive();
      step();
    }
    result_.preemptions = scheduler_.preemptions();
    result_.seconds = seconds(now_);
    if (result_.violation.empty()) {
      const KvPages& pages = scheduler_.pages();
      if (pages.used() != 0) fail("pages are in use at the end");
      fail(scheduler_.check_invariants());
    }
    return std::move(result_);
  }

 private:
  struct Live {
    std::vector<std::int32_t> tokens;
    std::int32_t prompt = 0;
    std::int32_t output = 0;
    std::int32_t computed = 0;  // now
    std::int32_t reached = 0;   // ever
    nanoseconds arrival{};
    nanoseconds last_token{};
  };

  static double seconds(nanoseconds time) { return std::chrono::duration<double>(time).count(); }

  Scheduler::TokensOf tokens_of() {
    if (!options_.prefix_cache) return {};
    return [this](SequenceId id) { return std::span<const std::int32_t>(live_.at(id).tokens); };
  }

  void fail(const std::string& what) {
    if (what.empty() || !result_.violation.empty()) return;
    result_.violation = "step " + std::to_string(result_.steps) + ": " + what;
  }

  nanoseconds arrival_of(const TraceRequest& request) const {
    return nanoseconds(static_cast<std::int64_t>(static_cast<double>(request.arrival_ms) * 1e6 *
                                                 options_.stretch));
  }

  void arrive() {
    if (live_.empty()) now_ = std::max(now_, arrival_of(trace_[next_]));
    for (; next_ < trace_.size() && arrival_of(trace_[next_]) <= now_; ++next_) {
      const TraceRequest& request = trace_[next_];
      const auto id = static_cast<SequenceId>(next_);
      Live& live = live_[id];
      live.prompt = std::max(request.input * options_.block_tokens / kTraceBlock, 1);
      live.output = std::max(request.output / options_.output_divisor, 1);
      live.arrival = arrival_of(request);
      live.tokens = trace_prompt(request, options_.block_tokens, live.prompt);
      result_.prompt_tokens += live.prompt;
      SequenceSpec spec;
      spec.id = id;
      spec.prompt_tokens = live.prompt;
      scheduler_.add(spec);
    }
  }

  void check_slice(const PlannedSlice& slice, Live& live) {
    const std::int32_t page_tokens = options_.limits.page_tokens;
    const auto known = static_cast<std::int32_t>(live.tokens.size());
    const std::int32_t end = slice.first + slice.count;
    if (slice.count < 1 || end > (slice.prompt ? live.prompt : known)) fail("rows that are not");
    if (slice.prompt != (slice.first < live.prompt)) fail("a slice of both kinds");
    if (slice.samples != (end == known)) fail("a wrong row is sampled");
    // Rows that are passed over must be whole pages from the cache.
    // So are those of a sequence that was preempted and admitted again in one go.
    if (slice.first < live.computed && !preempted_) fail("rows repeated");
    if (slice.first != live.computed && slice.first % page_tokens != 0) fail("rows lost");
    if (slice.pages.size() * static_cast<std::size_t>(page_tokens) <
        static_cast<std::size_t>(end)) {
      fail("rows without a page");
    }
    for (std::int32_t page = slice.first / page_tokens; page * page_tokens < end; ++page) {
      const PageId id = slice.pages[static_cast<std::size_t>(page)];
      if (scheduler_.pages().count(id) != 1 || scheduler_.pages().kept(id)) {
        fail("a shared page is written");
      }
    }
  }

  nanoseconds cost(const PlannedSlice& slice) const {
    const bool decode = !slice.prompt && slice.count == 1;
    const std::int64_t keys =
        decode ? slice.first + 1
               : std::min<std::int64_t>(slice.first + slice.count, options_.cost.prefill_keys);
    const double key_ns = decode ? options_.cost.decode_key_ns : options_.cost.prefill_key_ns;
    return nanoseconds(static_cast<std::int64_t>(
        slice.count * (options_.cost.row_ns + key_ns * static_cast<double>(keys))));
  }

  void step() {
    const std::int32_t allowed = sizer_.rows();
    const std::int32_t in_cache = cached_pages();
    const std::int64_t preemptions = scheduler_.preemptions();
    const auto plan = scheduler_.plan(allowed);
    preempted_ = scheduler_.preemptions() > preemptions;
    result_.evictions += in_cache - cached_pages();
    for (auto& [id, live] : live_) {
      if (!scheduler_.is_running(id)) live.computed = 0;
    }
    std::int32_t decodes = 0;
    std::int32_t prefill_rows = 0;
    nanoseconds time = options_.cost.base;
    for (const PlannedSlice& slice : plan) {
      Live& live = live_.at(slice.sequence);
      check_slice(slice, live);
      time += cost(slice);
      if (!slice.prompt && slice.count == 1 && slice.samples) {
        ++decodes;
      } else {
        prefill_rows += slice.count;
      }
      result_.computed_rows += slice.count;
      const std::int32_t found = std::min(slice.first, live.prompt) - live.reached;
      if (found > 0) result_.cached_tokens += found;
      live.computed = slice.first + slice.count;
      live.reached = std::max(live.reached, live.computed);
    }
    check_step(plan, decodes, prefill_rows, allowed);
    now_ += time;
    if (prefill_rows > 0) sizer_.observe(prefill_rows, time);

    done_.assign(plan.begin(), plan.end());
    scheduler_.finish_step();
    for (const PlannedSlice& slice : done_) {
      if (slice.samples) token(slice.sequence);
    }
    ++result_.steps;
    if (result_.steps % options_.check_every == 0) fail(scheduler_.check_invariants());
  }

  std::int32_t cached_pages() const {
    return scheduler_.prefix_cache() == nullptr ? 0 : scheduler_.prefix_cache()->size();
  }

  void check_step(std::span<const PlannedSlice> plan, std::int32_t decodes,
                  std::int32_t prefill_rows, std::int32_t allowed) {
    if (plan.empty()) fail("a step without rows");
    if (decodes + prefill_rows > options_.limits.step_rows) fail("more rows than a step has");
    if (decodes > 0 && prefill_rows > std::max(allowed, 1)) fail("more prompt rows than allowed");
    // Everybody is of one kind here, so the oldest goes before all.
    const SequenceId oldest = live_.begin()->first;
    bool moves = false;
    in_step_.clear();
    for (const PlannedSlice& slice : plan) {
      moves |= slice.sequence == oldest;
      if (!in_step_.insert(slice.sequence).second) fail("two slices of a sequence");
    }
    pause_ = moves ? 0 : pause_ + 1;
    result_.longest_pause = std::max(result_.longest_pause, pause_);
    if (pause_ > kLongestPause) fail("the oldest request starves");
    for (const auto& [id, live] : live_) {
      if (in_step_.contains(id) || !scheduler_.is_running(id)) continue;
      const auto known = static_cast<std::int32_t>(live.tokens.size());
      if (known > live.prompt && live.computed == known - 1) fail("an answer without its row");
    }
  }

  void token(SequenceId id) {
    Live& live = live_.at(id);
    const auto generated = static_cast<std::int32_t>(live.tokens.size()) - live.prompt;
    if (generated == 0) {
      result_.ttft[static_cast<std::size_t>(id)] = seconds(now_ - live.arrival);
    } else {
      result_.itl.push_back(seconds(now_ - live.last_token));
    }
    live.last_token = now_;
    // An answer's tokens: its own, unlike any prompt's but by chance.
    live.tokens.push_back(static_cast<std::int32_t>((id * 31 + generated * 7) % 251));
    if (generated + 1 < live.output) return;
    if (!scheduler_.remove(id)) fail("a request got lost");
    live_.erase(id);
    ++result_.finished;
  }

  const std::vector<TraceRequest>& trace_;
  ReplayOptions options_;
  ReplayResult result_;
  ChunkSizer sizer_;
  std::map<SequenceId, Live> live_;
  Scheduler scheduler_;
  nanoseconds now_{};
  std::size_t next_ = 0;
  std::int64_t pause_ = 0;
  bool preempted_ = false;  // somebody, for this step
  std::set<SequenceId> in_step_;
  std::vector<PlannedSlice> done_;
};

}  // namespace

ReplayResult replay(const std::vector<TraceRequest>& trace, const ReplayOptions& options) {
  return Player(trace, options).play();
}

}  // namespace mobius
