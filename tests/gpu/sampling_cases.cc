#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/cuda/sampling.h"
#include "kernels/oracle/sampling.h"
#include "tests/gpu/cases.h"

namespace mobius::gpu {
namespace {

/// Weights are kept to 2^-31 of the most likely token's: how far the drawn number may miss an
/// interval's edge, for vocabularies of this size.
constexpr double kEdge = 2e-4;
constexpr double kLogprobError = 2e-4;

struct Request {
  const char* name;
  SamplingParams params;
  bool prompt = false;
  bool mask = false;
};

std::vector<Request> requests() {
  std::vector<Request> all;
  const auto add = [&all](const char* name, auto&& change, bool prompt = false, bool mask = false) {
    Request request{name, {}, prompt, mask};
    change(request.params);
    all.push_back(std::move(request));
  };
  add("greedy", [](SamplingParams& p) { p.temperature = 0; });
  add("plain", [](SamplingParams&) {});
  add("hot", [](SamplingParams& p) { p.temperature = 2.5F; });
  add("cold", [](SamplingParams& p) { p.temperature = 0.05F; });
  add("top_k 1", [](SamplingParams& p) { p.top_k = 1; });
  add("top_k 40", [](SamplingParams& p) { p.top_k = 40; });
  add("top_k of all", [](SamplingParams& p) { p.top_k = 1 << 20; });
  add("top_p 0.9", [](SamplingParams& p) { p.top_p = 0.9F; });
  add("top_p 1e-6", [](SamplingParams& p) { p.top_p = 1e-6F; });
  add("min_p 0.1", [](SamplingParams& p) { p.min_p = 0.1F; });
  add("all filters", [](SamplingParams& p) {
    p.temperature = 0.8F;
    p.top_k = 50;
    p.top_p = 0.95F;
    p.min_p = 0.02F;
  });
  add(
      "penalties",
      [](SamplingParams& p) {
        p.repetition_penalty = 1.3F;
        p.presence_penalty = 0.5F;
        p.frequency_penalty = 0.25F;
      },
      true);
  add(
      "penalties, greedy",
      [](SamplingParams& p) {
        p.temperature = 0;
        p.repetition_penalty = 0.7F;
        p.frequency_penalty = -0.5F;
      },
      true);
  add("bias", [](SamplingParams& p) {
    p.logit_bias = {{3, 100.0F}, {5, 99.0F}, {3, -1.5F}, {-1, 5.0F}, {1 << 30, 5.0F}};
  });
  add(
      "mask", [](SamplingParams& p) { p.top_p = 0.99F; }, false, true);
  add(
      "everything",
      [](SamplingParams& p) {
        p.temperature = 1.2F;
        p.top_k = 100;
        p.top_p = 0.9F;
        p.min_p = 0.01F;
        p.presence_penalty = 1.0F;
        p.repetition_penalty = 1.1F;
        p.logit_bias = {{1, 2.0F}, {2, -100.0F}};
        p.top_logprobs = 20;
      },
      true, true);
  add("logprobs", [](SamplingParams& p) { p.top_logprobs = 5; });
  add("own logprob", [](SamplingParams& p) { p.top_logprobs = 0; });
  return all;
}

/// Whether the token's interval holds the row's uniform number, but for an edge.
bool may_be_drawn(const std::vector<OracleCandidate>& candidates, std::int32_t token,
                  double uniform) {
  double before = 0;
  for (const OracleCandidate& candidate : candidates) {
    if (candidate.token == token) {
      return uniform > before - kEdge && uniform < before + candidate.probability + kEdge;
    }
    before += candidate.probability;
  }
  return false;
}

void draw_cases(const std::vector<Request>& all, std::int64_t vocab, int seeds, bool equal_logits,
                Report& report) {
  CudaStream stream;
  const auto count = static_cast<std::int32_t>(all.size());
  CudaSampler sampler(count, vocab);
  std::mt19937_64 random(17);
  std::vector<int> wrong(all.size(), 0);
  std::vector<int> other(all.size(), 0);  // not the oracle's token, but within the edge
  std::vector<double> logprob_error(all.size(), 0.0);
  for (int seed = 0; seed < seeds; ++seed) {
    std::vector<float> logits =
        random_values(static_cast<std::size_t>(vocab * count), random, 3.0F);
    if (equal_logits) {
      for (float& value : logits) value = std::round(value);  // many ties
    }
    std::vector<SampleRow> rows;
    std::vector<SamplingParams> params;
    for (const Request& request : all) params.push_back(request.params);
    const auto any_token = [&] {
      return static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocab));
    };
    std::vector<std::int32_t> prompt;
    std::vector<std::int32_t> generated;
    for (int i = 0; i < 60; ++i) prompt.push_back(any_token());
    for (int i = 0; i < 5 + seed; ++i) generated.push_back(i % 3 == 0 ? prompt[0] : any_token());
    std::vector<std::uint32_t> mask(static_cast<std::size_t>((vocab + 31) / 32));
    for (std::uint32_t& word : mask) word = static_cast<std::uint32_t>(random());
    mask[0] |= 1;
    for (std::size_t i = 0; i < all.size(); ++i) {
      params[i].seed = random();
      SampleRow row;
      row.params = &params[i];
      if (all[i].prompt) row.prompt = prompt;
      row.generated = generated;
      if (all[i].mask) row.allowed = mask;
      rows.push_back(row);
    }
    DeviceMatrix matrix(DType::f32, count, vocab);
    matrix.set(logits);
    std::vector<SampledToken> out(rows.size());
    sampler.check(rows, vocab);
    sampler.sample(matrix.tensor(), rows, stream);
    stream.synchronize();
    sampler.collect(out, rows);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const std::span<const float> own = std::span(logits).subspan(
          i * static_cast<std::size_t>(vocab), static_cast<std::size_t>(vocab));
      // The oracle takes ids as they come: those out of range have no effect.
      SamplingParams in_range = params[i];
      std::erase_if(in_range.logit_bias,
                    [&](const auto& bias) { return bias.first < 0 || bias.first >= vocab; });
      SampleRow row = rows[i];
      row.params = &in_range;
      const std::vector<OracleCandidate> candidates = oracle_distribution(own, row);
      const double uniform = double{uniform_draw(params[i].seed, generated.size())};
      if (out[i].token != oracle_draw(candidates, uniform)) {
        ++(may_be_drawn(candidates, out[i].token, uniform) ? other[i] : wrong[i]);
      }
      if (params[i].top_logprobs < 0) continue;
      const std::vector<double> logprobs = oracle_logprobs(own);
      const auto error_of = [&](std::int32_t token, float logprob) {
        return std::abs(double{logprob} - logprobs[static_cast<std::size_t>(token)]);
      };
      logprob_error[i] = std::max(logprob_error[i], error_of(out[i].token, out[i].logprob));
      std::vector<std::int32_t> order(static_cast<std::size_t>(vocab));
      for (std::size_t t = 0; t < order.size(); ++t) order[t] = static_cast<std::int32_t>(t);
      const auto top =
          static_cast<std::ptrdiff_t>(std::min<std::int64_t>(vocab, params[i].top_logprobs));
      std::partial_sort(order.begin(), order.begin() + top, order.end(),
                        [&](std::int32_t a, std::int32_t b) {
                          const float x = own[static_cast<std::size_t>(a)];
                          const float y = own[static_cast<std::size_t>(b)];
                          return x > y || (x == y && a < b);
                        });
      if (out[i].top.size() != static_cast<std::size_t>(top)) ++wrong[i];
      for (std::size_t t = 0; t < out[i].top.size(); ++t) {
        if (out[i].top[t].token != order[t]) ++wrong[i];
        logprob_error[i] =
            std::max(logprob_error[i], error_of(out[i].top[t].token, out[i].top[t].logprob));
      }
    }
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::string detail = std::to_string(wrong[i]) + " wrong, " + std::to_string(other[i]) +
                         " beside an edge, of " + std::to_string(seeds);
    if (all[i].params.top_logprobs >= 0) detail += ", logprob error " + text(logprob_error[i]);
    report.add({"sampling",
                std::string(all[i].name) + ", vocabulary " + std::to_string(vocab) +
                    (equal_logits ? ", ties" : ""),
                detail, wrong[i] == 0 && logprob_error[i] < kLogprobError});
  }
}

/// What is not finite is never drawn while something else may be.
void odd_cases(Report& report) {
  CudaStream stream;
  constexpr std::int64_t kVocab = 40;
  CudaSampler sampler(4, kVocab);
  const float nan = std::nanf("");
  std::vector<float> logits(4 * kVocab, -INFINITY);
  std::fill_n(logits.begin(), kVocab, nan);
  logits[7] = -5.0F;              // row 0: one number among NaN
  logits[kVocab + 9] = INFINITY;  // row 1: counts as the greatest float
  logits[kVocab + 3] = 1.0F;
  // Row 2: nothing, the lowest allowed id. Row 3: two equal ones, the lower.
  logits[3 * kVocab + 12] = 2.0F;
  logits[3 * kVocab + 11] = 2.0F;
  std::vector<SamplingParams> params(4);
  params[3].temperature = 0;
  params[2].top_logprobs = 1;
  const std::vector<std::uint32_t> mask = {0xfffffff0U, 0xffffffffU};
  std::vector<SampleRow> rows(4);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i].params = &params[i];
  rows[2].allowed = mask;
  DeviceMatrix matrix(DType::f32, 4, kVocab);
  matrix.set(logits);
  std::vector<SampledToken> out(4);
  sampler.sample(matrix.tensor(), rows, stream);
  stream.synchronize();
  sampler.collect(out, rows);
  const bool right = out[0].token == 7 && out[1].token == 9 && out[2].token == 4 &&
                     out[3].token == 11 && std::isfinite(out[2].logprob);
  report.add({"sampling", "logits that are not finite",
              std::to_string(out[0].token) + " " + std::to_string(out[1].token) + " " +
                  std::to_string(out[2].token) + " " + std::to_string(out[3].token),
              right});
}

}  // namespace

void run_sampling_cases(const Options& options, Report& report) {
  odd_cases(report);
  const std::vector<Request> all = requests();
  if (options.small) {
    // A few that reach every path: racecheck takes its time with clusters of 8,192 threads.
    std::vector<Request> some;
    for (const Request& request : all) {
      const std::string name = request.name;
      if (name == "greedy" || name == "plain" || name == "everything") some.push_back(request);
    }
    draw_cases(some, 100, 1, true, report);
    return;
  }
  draw_cases(all, 100, 40, false, report);
  draw_cases(all, 100, 40, true, report);
  draw_cases(all, 32000, 10, false, report);
  draw_cases(all, 128256, 6, false, report);
  draw_cases(all, 128256, 3, true, report);
  draw_cases(all, 262144, 2, false, report);
}

}  // namespace mobius::gpu
