#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace mobius {

/// What became of one request. Times are seconds.
struct RequestResult {
  double at = 0;    ///< when it was due, after the load's start
  double late = 0;  ///< how much later it was sent
  bool began = false;
  std::string error;         ///< empty: the answer is whole
  double first_token = 0;    ///< from when it was due; 0: none came
  double end_to_end = 0;     ///< likewise, to the answer's end
  std::vector<double> gaps;  ///< between events that carry text
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_tokens = 0;
  std::int64_t output_tokens = 0;
};

/// Values in ascending order; `share` from 0 to 1. Between two values the line between them, as
/// NumPy's default; 0 where there are none.
double percentile(const std::vector<double>& sorted, double share);

/// The whole of a run as JSON: totals, throughput, percentiles of time to first token (TTFT),
/// between tokens (ITL), per output token (TPOT) and end to end (E2E) over answers that are whole,
/// their curves of 101 points for plots, errors by message, and a line for each request.
/// `seconds`: from the start to the last answer's end.
nlohmann::ordered_json load_report(const std::vector<RequestResult>& results, double seconds);

/// The report as a few lines for a terminal.
std::string report_text(const nlohmann::ordered_json& report);

}  // namespace mobius
