#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/request.h"
#include "engine/status.h"
#include "server/metrics/histogram.h"

namespace mobius {

/// What became of a generation: "stop", "length", or its error's name.
std::string_view outcome_of(const Finish& finish);

/// Sums over generations that have ended since the start. Thread-safe; wait-free to feed.
class GenerationMetrics {
 public:
  using Counter = std::atomic<std::int64_t>;

  /// A generation that the engine had taken is over.
  void finished(const Finish& finish);
  /// A request was answered with an error before the engine took it.
  void refused(StatusCode code);

  // Read by the exposition.
  static constexpr std::size_t kCodes = 17;  ///< values of StatusCode are below
  Counter stopped = 0;
  Counter reached_length = 0;
  std::array<Counter, kCodes> failed{};    ///< by StatusCode
  std::array<Counter, kCodes> refusals{};  ///< by StatusCode
  Counter prompt_tokens = 0;               ///< of ended generations, cached ones included
  Counter cached_tokens = 0;
  std::array<Counter, 2> blocks_read{};  ///< prefill, decode
  std::array<Counter, 2> blocks_total{};
  Histogram queue;
  Histogram time_to_first_token;
  Histogram prefill;                ///< from the first computed row to the first token
  Histogram decode;                 ///< from the first token to the end
  Histogram time_per_output_token;  ///< a generation's mean after its first token
  Histogram generation;
};

}  // namespace mobius
