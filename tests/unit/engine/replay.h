#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/scheduler.h"
#include "tests/unit/engine/trace.h"

namespace mobius {

/// What a step takes on an imagined device: a constant, and something for each row and each key
/// that a row reads. The defaults are near an 8B model in bf16 on one H200.
struct StepCost {
  std::chrono::nanoseconds base = std::chrono::microseconds(5000);
  double row_ns = 30000;
  double prefill_key_ns = 1.3;
  double decode_key_ns = 27;
  std::int64_t prefill_keys = 12 * 4096;  ///< a prompt's row reads no more (MoBA)
};

struct ReplayOptions {
  SchedulerLimits limits;
  StepCost cost;
  bool prefix_cache = true;
  std::chrono::nanoseconds itl_target{};
  double stretch = 1;                       ///< of the time between arrivals
  std::int32_t block_tokens = kTraceBlock;  ///< smaller ones scale prompts down
  std::int32_t output_divisor = 1;          ///< scales answers down
  std::int64_t check_every = 1;             ///< steps between looks at every page
};

struct ReplayResult {
  std::string violation;  ///< of an invariant, the first; empty if there was none
  std::int64_t steps = 0;
  std::int64_t finished = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_tokens = 0;
  std::int64_t ideal_tokens = 0;  ///< an unlimited cache's share of prompt_tokens
  std::int64_t computed_rows = 0;
  std::int64_t preemptions = 0;
  std::int64_t evictions = 0;      ///< pages that were in the cache and are not any more
  std::int64_t longest_pause = 0;  ///< steps that the oldest request spent without a row
  double seconds = 0;
  std::vector<double> ttft;  ///< seconds, in the order of arrival
  std::vector<double> itl;   ///< seconds between two tokens of an answer, all of them

  double hit_rate() const {
    return static_cast<double>(cached_tokens) / static_cast<double>(prompt_tokens);
  }
  double ideal_rate() const {
    return static_cast<double>(ideal_tokens) / static_cast<double>(prompt_tokens);
  }
};

/// Plays a trace against the scheduler, the prefix cache and the chunk sizer on a clock that only
/// steps move, and checks at every step: rows within the budget, a row for each running answer, no
/// row lost or repeated, nobody writes a page that another holds, the oldest request moves.
/// Deterministic.
ReplayResult replay(const std::vector<TraceRequest>& trace, const ReplayOptions& options);

}  // namespace mobius
