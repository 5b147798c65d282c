#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/sampling.h"

namespace mobius {

/// A token that may be drawn, and how likely.
struct OracleCandidate {
  std::int32_t token = 0;
  double probability = 0.0;
};

/// The distribution that a token is drawn from, in the order of kernels/sampling.h: logit bias,
/// penalties, temperature, top-k, top-p, min-p. Most likely first, ties to the lower id;
/// probabilities sum to 1. temperature 0 leaves one candidate. `logits` must be finite.
std::vector<OracleCandidate> oracle_distribution(std::span<const float> logits,
                                                 const SampleRow& row);

/// The candidate whose interval holds `uniform` in [0, 1), candidates laid end to end.
std::int32_t oracle_draw(std::span<const OracleCandidate> candidates, double uniform);

/// Log-probabilities [vocab] under the model's own distribution.
std::vector<double> oracle_logprobs(std::span<const float> logits);

}  // namespace mobius
