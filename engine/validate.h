#pragma once

#include <cstddef>
#include <cstdint>

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
inline constexpr std::int32_t kMaxPriority = 100;  // -100 to 100

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
