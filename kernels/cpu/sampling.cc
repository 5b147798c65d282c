#include "kernels/cpu/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

namespace mobius {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kGreatest = std::numeric_limits<float>::max();
constexpr std::size_t kFirstCandidates = 128;

bool allows(std::span<const std::uint32_t> allowed, std::int64_t token) {
  return allowed.empty() ||
         (allowed[static_cast<std::size_t>(token / 32)] >> (token % 32) & 1U) != 0;
}

float finite_log(double value) {
  return static_cast<float>(std::max(value, -double{kGreatest}));
}

}  // namespace

void RowSampler::check(const SampleRow& row, std::int64_t vocab) {
  if (row.params == nullptr) throw std::invalid_argument("sample: a row has no parameters");
  if (row.allowed.empty()) return;
  const auto words = static_cast<std::size_t>((vocab + 31) / 32);
  if (row.allowed.size() < words) {
    throw std::invalid_argument("sample: the mask has " + std::to_string(row.allowed.size()) +
                                " words for " + std::to_string(vocab) + " tokens");
  }
  for (std::int64_t token = 0; token < vocab; ++token) {
    if (token % 32 == 0 && row.allowed[static_cast<std::size_t>(token / 32)] == 0) {
      token += 31;
    } else if (allows(row.allowed, token)) {
      return;
    }
  }
  throw std::invalid_argument("sample: the mask allows no token");
}

std::size_t RowSampler::scratch_bytes(std::int64_t vocab) {
  return static_cast<std::size_t>(vocab) *
         (2 * sizeof(Candidate) + sizeof(std::uint8_t) + 2 * sizeof(std::int32_t) + sizeof(float));
}

void RowSampler::reserve(std::int64_t vocab) {
  const auto size = static_cast<std::size_t>(vocab);
  if (size <= seen_.size()) return;
  candidates_.reserve(2 * size + kFirstCandidates);
  seen_.resize(size);
  generated_.resize(size);
  touched_.reserve(size);
  touched_logits_.reserve(size);
}

SampledToken RowSampler::sample(std::span<float> logits, const SampleRow& row) {
  const SamplingParams& params = *row.params;
  const auto vocab = static_cast<std::int64_t>(logits.size());
  reserve(vocab);
  SampledToken result;

  float highest = kernels_.clean_and_max(logits.data(), vocab);
  double log_sum = 0;
  if (params.top_logprobs >= 0) {
    // The model's own distribution: before bias, penalties and the mask.
    log_sum =
        highest == -kInfinity
            ? 0.0
            : double{highest} + std::log(kernels_.sum_exp(logits.data(), vocab, highest, 1.0F));
    find_most_likely(logits, static_cast<std::size_t>(params.top_logprobs));
    for (const Candidate& candidate : candidates_) {
      result.top.push_back({candidate.token, finite_log(double{candidate.logit} - log_sum)});
    }
  }

  edit(logits, row);
  if (!row.allowed.empty()) {
    for (std::int64_t token = 0; token < vocab; ++token) {
      if (!allows(row.allowed, token)) logits[static_cast<std::size_t>(token)] = -kInfinity;
    }
  }
  if (!touched_.empty() || !row.allowed.empty()) {
    highest = kernels_.clean_and_max(logits.data(), vocab);
  }
  if (highest == -kInfinity) {
    while (!allows(row.allowed, result.token)) ++result.token;
  } else if (!(params.temperature > 0.0F)) {
    result.token = static_cast<std::int32_t>(std::find(logits.begin(), logits.end(), highest) -
                                             logits.begin());
  } else {
    result.token = draw(logits, highest, row);
  }
  if (params.top_logprobs >= 0) {
    result.logprob = finite_log(double{raw_logit(logits, result.token)} - log_sum);
  }
  return result;
}

void RowSampler::edit(std::span<float> logits, const SampleRow& row) {
  const SamplingParams& params = *row.params;
  const auto vocab = static_cast<std::int32_t>(logits.size());
  const auto at = [](std::int32_t token) { return static_cast<std::size_t>(token); };
  const auto in_range = [&](std::int32_t token) { return token >= 0 && token < vocab; };
  touched_.clear();
  touched_logits_.clear();
  // Marks a token as edited, keeping what its logit was. `seen_` is the mark.
  const auto touch = [&](std::int32_t token) {
    if (seen_[at(token)] != 0) return;
    seen_[at(token)] = 1;
    touched_.push_back(token);
    touched_logits_.push_back(logits[at(token)]);
  };

  const bool repetition = params.repetition_penalty != 1.0F;
  const bool counted = params.presence_penalty != 0.0F || params.frequency_penalty != 0.0F;
  if (counted) {
    for (const std::int32_t token : row.generated) {
      if (in_range(token)) ++generated_[at(token)];
    }
  }
  if (repetition) {
    for (const std::int32_t token : row.prompt) {
      if (in_range(token)) touch(token);
    }
  }
  if (repetition || counted) {
    for (const std::int32_t token : row.generated) {
      if (in_range(token)) touch(token);
    }
  }
  const std::size_t penalised = touched_.size();
  for (const auto& [token, bias] : params.logit_bias) {
    if (!in_range(token)) continue;
    touch(token);
    logits[at(token)] += bias;
  }
  for (std::size_t i = 0; i < penalised; ++i) {
    float& logit = logits[at(touched_[i])];
    if (repetition) {
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    }
    const std::int32_t count = generated_[at(touched_[i])];
    if (count > 0) {
      logit -= params.presence_penalty + params.frequency_penalty * static_cast<float>(count);
    }
  }
  for (const std::int32_t token : touched_) {
    seen_[at(token)] = 0;
    generated_[at(token)] = 0;
  }
}

float RowSampler::raw_logit(std::span<const float> logits, std::int32_t token) const {
  const auto found = std::find(touched_.begin(), touched_.end(), token);
  if (found == touched_.end()) return logits[static_cast<std::size_t>(token)];
  return touched_logits_[static_cast<std::size_t>(found - touched_.begin())];
}

void RowSampler::find_most_likely(std::span<const float> logits, std::size_t count) {
  candidates_.clear();
  count = std::min(count, logits.size());
  if (count == 0) return;
  const auto keep_best = [&] {
    std::nth_element(candidates_.begin(),
                     candidates_.begin() + static_cast<std::ptrdiff_t>(count) - 1,
                     candidates_.end(), before);
    candidates_.resize(count);
  };
  // Collects what beats the worst of the best seen so far, and thins out when twice as many as
  // needed have come together: few logits of a large vocabulary ever get that far.
  float threshold = -kInfinity;
  bool full = false;
  const std::size_t capacity = std::max<std::size_t>(2 * count, count + kFirstCandidates);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    // An equal logit of a higher id does not beat one that is in already.
    if (full && !(logits[i] > threshold)) continue;
    candidates_.push_back({logits[i], static_cast<std::int32_t>(i)});
    if (candidates_.size() < capacity) continue;
    keep_best();
    threshold = candidates_.back().logit;  // nth_element leaves the worst of them last
    full = true;
  }
  if (candidates_.size() > count) keep_best();
  std::sort(candidates_.begin(), candidates_.end(), before);
}

std::int32_t RowSampler::draw(std::span<const float> logits, float highest, const SampleRow& row) {
  const SamplingParams& params = *row.params;
  const float scale = std::min(1.0F / params.temperature, kGreatest);
  const auto weight = [&](const Candidate& candidate) {
    return std::exp(double{candidate.logit - highest} * double{scale});
  };
  // Every filter keeps a head of the tokens in their order of likelihood, so that only as many are
  // ordered as the filters and the draw need.
  const std::size_t limit = params.top_k > 0
                                ? std::min(static_cast<std::size_t>(params.top_k), logits.size())
                                : logits.size();
  const double uniform = double{uniform_draw(row.params->seed, row.generated.size())};
  double total = 0;
  if (limit == logits.size()) {
    total =
        kernels_.sum_exp(logits.data(), static_cast<std::int64_t>(logits.size()), highest, scale);
  } else {
    find_most_likely(logits, limit);
    for (const Candidate& candidate : candidates_) total += weight(candidate);
  }
  for (std::size_t count = std::min(limit, kFirstCandidates);; count = std::min(limit, 8 * count)) {
    if (limit == logits.size()) find_most_likely(logits, count);
    const bool last = count == limit;
    // How many top-p and min-p keep, where that shows within `count`.
    double kept_weight = 0;
    std::size_t kept = 0;
    bool cut = false;
    while (kept < count && !cut) {
      const double next = weight(candidates_[kept]);
      if (kept > 0 && next < double{params.min_p}) {
        cut = true;
      } else {
        kept_weight += next;
        ++kept;
        cut = params.top_p < 1.0F && kept_weight >= double{params.top_p} * total;
      }
    }
    const bool filtered = params.min_p > 0.0F || params.top_p < 1.0F;
    if (filtered && !cut && !last) continue;
    const double target = uniform * (filtered || last ? kept_weight : total);
    double sum = 0;
    for (std::size_t i = 0; i < kept; ++i) {
      sum += weight(candidates_[i]);
      if (target < sum) return candidates_[i].token;
    }
    if (cut || last) return candidates_[kept - 1].token;
  }
}

}  // namespace mobius
