#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace mobius {

/// How the next token is drawn from a row of logits. The order is: logit bias, penalties,
/// temperature, top-k, top-p, min-p, draw. Ranges are checked when a request enters the engine,
/// not here.
struct SamplingParams {
  float temperature = 1.0F;  ///< 0: the most likely token, ties to the lower id
  std::int32_t top_k = 0;    ///< keep this many tokens; 0: all
  float top_p = 1.0F;        ///< keep the smallest set with this much probability; (0, 1]
  float min_p = 0.0F;        ///< drop tokens under min_p times the most likely one's
  float repetition_penalty =
      1.0F;                        ///< divides positive (multiplies negative) logits of seen tokens
  float presence_penalty = 0.0F;   ///< subtracted once from tokens generated before
  float frequency_penalty = 0.0F;  ///< subtracted per earlier generation of the token
  std::uint64_t seed = 0;
  std::vector<std::pair<std::int32_t, float>> logit_bias;  ///< added to the logit of the id
  std::int32_t top_logprobs =
      -1;  ///< -1: no logprobs; 0: the token's own; n: and the n most likely
};

struct TokenLogprob {
  std::int32_t token = 0;
  float logprob = 0.0F;
};

/// How to sample one row of logits. Everything is borrowed until the step ends.
struct SampleRow {
  const SamplingParams* params = nullptr;
  std::span<const std::int32_t> prompt;  ///< counts for repetition_penalty
  std::span<const std::int32_t>
      generated;  ///< counts for all penalties; its size is the draw's index
  /// Bit i of word i/32 set: token i may be drawn. Empty: all may.
  std::span<const std::uint32_t> allowed;
};

struct SampledToken {
  std::int32_t token = 0;
  /// Log-probability under the model's own distribution (before bias, penalties and temperature);
  /// 0 when not asked for.
  float logprob = 0.0F;
  std::vector<TokenLogprob> top;  ///< most likely first
};

/// The draw of (seed, index): uniform in [0, 1), the same on every backend. Philox 4x32-10 with the
/// seed as key and the index as counter (Salmon et al., "Parallel random numbers: as easy as 1, 2,
/// 3", SC 2011), so that a token does not depend on what else is in the batch.
float uniform_draw(std::uint64_t seed, std::uint64_t index);

}  // namespace mobius
