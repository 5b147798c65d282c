#include "kernels/oracle/sampling.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels/oracle/ops.h"

namespace mobius {
namespace {

void normalise(std::vector<OracleCandidate>& candidates) {
  double sum = 0;
  for (const OracleCandidate& candidate : candidates) sum += candidate.probability;
  for (OracleCandidate& candidate : candidates) candidate.probability /= sum;
}

}  // namespace

std::vector<OracleCandidate> oracle_distribution(std::span<const float> logits,
                                                 const SampleRow& row) {
  const SamplingParams& params = *row.params;
  std::vector<double> values(logits.begin(), logits.end());
  for (const auto& [token, bias] : params.logit_bias) {
    values[static_cast<std::size_t>(token)] += double{bias};
  }

  std::set<std::int32_t> seen(row.prompt.begin(), row.prompt.end());
  seen.insert(row.generated.begin(), row.generated.end());
  for (const std::int32_t token : seen) {
    double& value = values[static_cast<std::size_t>(token)];
    value = value > 0 ? value / double{params.repetition_penalty}
                      : value * double{params.repetition_penalty};
  }
  const std::set<std::int32_t> generated(row.generated.begin(), row.generated.end());
  for (const std::int32_t token : generated) {
    const auto count = std::count(row.generated.begin(), row.generated.end(), token);
    values[static_cast<std::size_t>(token)] -=
        double{params.presence_penalty} +
        double{params.frequency_penalty} * static_cast<double>(count);
  }

  std::vector<OracleCandidate> candidates;
  for (std::size_t token = 0; token < values.size(); ++token) {
    const bool allowed = row.allowed.empty() || (row.allowed[token / 32] >> (token % 32) & 1U) != 0;
    if (allowed) candidates.push_back({static_cast<std::int32_t>(token), values[token]});
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const OracleCandidate& a, const OracleCandidate& b) {
                     return a.probability > b.probability;
                   });
  if (params.temperature == 0.0F) return {{candidates.front().token, 1.0}};

  std::vector<double> scaled;
  scaled.reserve(candidates.size());
  for (const OracleCandidate& candidate : candidates) {
    scaled.push_back(candidate.probability / double{params.temperature});
  }
  const std::vector<double> probabilities = oracle_softmax(scaled);
  for (std::size_t i = 0; i < candidates.size(); ++i) candidates[i].probability = probabilities[i];

  const auto top_k = static_cast<std::size_t>(params.top_k);
  if (top_k > 0 && top_k < candidates.size()) candidates.resize(top_k);
  normalise(candidates);

  if (params.top_p < 1.0F) {
    double sum = 0;
    std::size_t kept = 0;
    while (kept < candidates.size() && sum < double{params.top_p}) {
      sum += candidates[kept++].probability;
    }
    candidates.resize(std::max<std::size_t>(kept, 1));
  }

  const double least = double{params.min_p} * candidates.front().probability;
  std::erase_if(candidates,
                [&](const OracleCandidate& candidate) { return candidate.probability < least; });
  normalise(candidates);
  return candidates;
}

std::int32_t oracle_draw(std::span<const OracleCandidate> candidates, double uniform) {
  double sum = 0;
  for (const OracleCandidate& candidate : candidates) {
    sum += candidate.probability;
    if (uniform < sum) return candidate.token;
  }
  return candidates.back().token;
}

std::vector<double> oracle_logprobs(std::span<const float> logits) {
  const std::vector<double> values(logits.begin(), logits.end());
  return oracle_log_softmax(values);
}

}  // namespace mobius
