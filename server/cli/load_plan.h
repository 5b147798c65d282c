#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mobius {

/// A request that is to be made.
struct PlannedRequest {
  double at = 0;  ///< seconds after the start; closed loops ignore it
  std::int64_t prompt_tokens = 0;
  std::int64_t output_tokens = 0;
  /// Where the prompt's text comes from: `block_tokens` of each, equal ids are equal texts. Two
  /// prompts that begin with the same ids begin with the same text.
  std::vector<std::uint64_t> blocks;
  std::int64_t block_tokens = 0;
};

/// Lengths, drawn uniformly from both ends included.
struct LengthRange {
  std::int64_t least = 0;
  std::int64_t most = 0;
};

/// Reads "N" or "N:M", in tokens. Throws std::runtime_error, beginning with `option`.
LengthRange parse_length_range(std::string_view option, const std::string& text);

/// Requests whose prompts share nothing. With a `rate` above 0 they come as a Poisson process of
/// that many a second, else all at 0. The same seed gives the same plan.
std::vector<PlannedRequest> plan_requests(std::size_t count, LengthRange prompt, LengthRange output,
                                          double rate, std::uint64_t seed);

struct TraceOptions {
  std::size_t most = 0;          ///< requests taken, from the trace's beginning; 0: all
  double speed = 1;              ///< times that arrivals come faster than in the trace
  double length_scale = 1;       ///< of prompts and answers, for models of shorter context
  std::int64_t skip_longer = 0;  ///< leave out prompts with answers beyond; 0: none
};

/// A trace in Mooncake's format, a JSON object a line: `timestamp` in milliseconds, `input_length`
/// and `output_length` in tokens, `hash_ids` of the prompt's blocks of 512 tokens. Throws
/// std::runtime_error with file and line.
std::vector<PlannedRequest> read_trace_plan(const std::string& path, const TraceOptions& options);

}  // namespace mobius
