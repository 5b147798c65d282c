#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>

#include "engine/request.h"
#include "engine/status.h"
#include "models/runner.h"

namespace mobius {

// What a request may ask for, beyond what the model itself limits. The ranges are OpenAI's where
// its API has the field, else vLLM's.
inline constexpr float kMaxTemperature = 2.0F;
inline constexpr float kMaxPenalty = 2.0F;             // presence and frequency: -2 to 2
inline constexpr float kMinRepetitionPenalty = 0.01F;  // further out, logits overflow
inline constexpr float kMaxRepetitionPenalty = 100.0F;
inline constexpr float kMaxLogitBias = 100.0F;
inline constexpr std::int32_t kMaxTopLogprobs = 20;
inline constexpr std::size_t kMaxStopStrings = 16;
inline constexpr std::size_t kMaxStopBytes = 1024;
inline constexpr std::size_t kMaxStopTokens = 256;
/// Prompt tokens whose log-probabilities one answer may have, all its choices together.
inline constexpr std::int64_t kMaxScoredTokens = 32768;
inline constexpr std::int32_t kMaxPriority = 100;  // -100 to 100

/// What an integer of a request may be. `high` is the type's where nothing else limits it.
struct IntegerRange {
  std::int64_t low = 0;
  std::int64_t high = std::numeric_limits<std::int32_t>::max();
  std::string_view note = {};  ///< behind the range, in messages
};
inline constexpr IntegerRange kMaxTokensRange = {.low = 0};
inline constexpr IntegerRange kTopKRange = {.low = 0, .note = " (0: all)"};
inline constexpr IntegerRange kTopLogprobsRange = {.low = 0, .high = kMaxTopLogprobs};
inline constexpr IntegerRange kPriorityRange = {.low = -kMaxPriority, .high = kMaxPriority};

/// OK, or invalid_argument: "priority is 101, must be from -100 to 100". Values are as wide as a
/// protocol can carry, so that one that a request cannot hold is refused in the same words.
Status check_integer(std::string_view field, std::int64_t value, const IntegerRange& range);
/// The same for an element of a list of tokens: "stop_token_ids has token -1, must be from 0 to 9".
Status check_token(std::string_view field, std::int64_t token, const RunnerInfo& model);

/// OK, or invalid_argument for the first field that cannot be served: "temperature is nan, must be
/// a number from 0 to 2". `max_context`: tokens that one sequence can have, the generated ones
/// included. Thread-safe; O(prompt).
Status validate(const GenerationRequest& request, const RunnerInfo& model,
                std::int32_t max_context);

/// The refusal of a prompt that has `length` tokens, or at least as many, where that was enough to
/// know: max_context or more.
Status prompt_too_long(std::size_t length, bool exact, std::int32_t max_context);

/// The same for attention alone, a server's defaults for example. Fields are
/// "attention.prefill.block" and the like.
Status validate(const AttentionSettings& attention, std::int32_t num_layers,
                std::int32_t page_tokens);

}  // namespace mobius
