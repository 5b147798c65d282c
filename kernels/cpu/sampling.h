#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/sampling.h"

namespace mobius {

/// Draws tokens from rows of logits by the rules of kernels/sampling.h. Holds scratch memory, so
/// one thread at a time.
///
/// Where logits are not finite: NaN and -infinity are never drawn while another allowed token may
/// be, +infinity counts as the greatest float, and where no allowed token is left the lowest
/// allowed id is drawn. Log-probabilities are finite: those of probability 0 are the lowest float.
/// Ids outside [0, vocab) among bias, prompt and generated tokens have no effect.
///
/// Kept tokens are laid end to end, most likely first and equal ones by id; the draw picks the one
/// that uniform_draw(seed, tokens generated) falls on.
class RowSampler {
 public:
  explicit RowSampler(Isa isa) : kernels_(row_kernels(isa)) {}

  /// Throws std::invalid_argument where the row has no params, its mask is shorter than the
  /// vocabulary or allows no token at all.
  static void check(const SampleRow& row, std::int64_t vocab);

  /// Bytes of scratch for rows of `vocab` logits, and the call that takes them.
  static std::size_t scratch_bytes(std::int64_t vocab);
  void reserve(std::int64_t vocab);

  /// logits[vocab] are overwritten; vocab >= 1; `row` has passed `check`.
  SampledToken sample(std::span<float> logits, const SampleRow& row);

 private:
  struct Candidate {
    float logit;
    std::int32_t token;
  };
  static bool before(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
  }

  void edit(std::span<float> logits, const SampleRow& row);
  float raw_logit(std::span<const float> logits, std::int32_t token) const;
  /// Makes candidates_ the `count` most likely tokens, in order; all where there are no more.
  void find_most_likely(std::span<const float> logits, std::size_t count);
  std::int32_t draw(std::span<const float> logits, float highest, const SampleRow& row);

  const RowKernels& kernels_;
  std::vector<Candidate> candidates_;
  std::vector<std::uint8_t> seen_;       ///< [vocab] prompt or generated; all 0 between rows
  std::vector<std::int32_t> generated_;  ///< [vocab] times generated; all 0 between rows
  std::vector<std::int32_t> touched_;    ///< tokens whose logit was edited
  std::vector<float> touched_logits_;    ///< ... and what it was before
};

}  // namespace mobius
