#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/oracle/attention.h"
#include "kernels/oracle/ops.h"
#include "tests/gpu/attention_fixture.h"
#include "tests/gpu/cases.h"

namespace mobius::gpu {
namespace {

/// Root mean square over a head of a row's error against that of the values it weighs: two
/// roundings to 8 bits, of probabilities and of the output.
constexpr double kAllowedError = 8e-3;
/// Scores this close may be ordered otherwise than in float64: fp32 sums of D products of values
/// near 1.
constexpr double kNearTie = 1e-4;

std::string name_of_policy(const AttentionPolicy& policy) {
  if (policy.mode == AttentionMode::full) return "full";
  return "moba " + std::to_string(policy.block) + "/" + std::to_string(policy.top_k);
}

std::string name_of_sizes(const AttentionSizes& sizes) {
  return std::to_string(sizes.heads) + "/" + std::to_string(sizes.kv_heads) + " heads of " +
         std::to_string(sizes.head_dim) + ", page " + std::to_string(sizes.page_tokens) +
         (sizes.centroid_block > 0 ? ", stored " + std::to_string(sizes.centroid_block) : "") +
         (sizes.fp8 ? ", fp8" : "");
}

/// Keys against the oracle's rotation; values, sums and centroids must be exact.
void check_cache(AttentionFixture& fixture, const TestSequence& sequence, const std::string& name,
                 Report& report) {
  const AttentionSizes& sizes = fixture.sizes;
  const OracleSequence cached = fixture.gather(sequence);
  const std::int64_t columns = std::int64_t{sizes.heads + 2 * sizes.kv_heads} * sizes.head_dim;
  std::vector<double> want;
  std::vector<double> want_q;
  bool values_equal = true;
  for (std::int32_t token = 0; token < sequence.done; ++token) {
    const std::span<const float> row =
        std::span(sequence.qkv)
            .subspan(static_cast<std::size_t>(token * columns), static_cast<std::size_t>(columns));
    const auto head = [&](std::int32_t h) {
      return row.subspan(static_cast<std::size_t>(h * sizes.head_dim),
                         static_cast<std::size_t>(sizes.head_dim));
    };
    for (std::int32_t h = 0; h < sizes.heads + sizes.kv_heads; ++h) {
      const std::vector<double> rotated = oracle_rope(head(h), token, fixture.inverse_frequencies);
      std::vector<double>& to = h < sizes.heads ? want_q : want;
      to.insert(to.end(), rotated.begin(), rotated.end());
    }
    for (std::int32_t g = 0; g < sizes.kv_heads; ++g) {
      const std::span<const float> value = head(sizes.heads + sizes.kv_heads + g);
      const std::vector<float> stored =
          sizes.fp8 ? oracle_quantise(value) : rounded(DType::bf16, value);
      const std::size_t at = static_cast<std::size_t>(token * sizes.kv_heads + g) * value.size();
      values_equal =
          values_equal && std::equal(stored.begin(), stored.end(),
                                     cached.values.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }
  const double key_error = relative_error(cached.keys, want);
  const double q_error = relative_error(sequence.q, want_q);
  const double allowed = sizes.fp8 ? 3e-2 : 2.5e-3;
  report.add({"rope", name,
              "error q " + text(q_error) + ", k " + text(key_error) + ", values " +
                  (values_equal ? "exact" : "differ"),
              q_error < 2.5e-3 && key_error < allowed && values_equal});

  const std::vector<float> sums = fixture.page_sums(sequence);
  const std::size_t width = static_cast<std::size_t>(sizes.kv_heads * sizes.head_dim);
  std::vector<float> want_sums(sums.size(), 0.0F);
  for (std::int32_t token = 0; token < sequence.done; ++token) {
    const auto page = static_cast<std::size_t>(token / sizes.page_tokens);
    for (std::size_t i = 0; i < width; ++i) {
      want_sums[page * width + i] += cached.keys[static_cast<std::size_t>(token) * width + i];
    }
  }
  bool exact = sums == want_sums;
  if (sizes.centroid_block > 0) {
    exact = exact &&
            fixture.stored_centroids(sequence) == oracle_centroids(cached, sizes.centroid_block);
  }
  report.add({"centroids", name, exact ? "exact" : "sums or centroids differ", exact});
}

/// Rows from `first` on against the oracle: outputs, and selected blocks but for near ties.
void check_rows(AttentionFixture& fixture, const TestSequence& sequence, std::int32_t first,
                const std::string& name, Report& report) {
  const AttentionSizes& sizes = fixture.sizes;
  const OracleSequence cached = fixture.gather(sequence);
  const auto columns = static_cast<std::size_t>(sizes.heads * sizes.head_dim);
  const auto from = static_cast<std::size_t>(first) * columns;
  const OracleAttention oracle = oracle_attention(
      cached, sequence.policy, std::span(sequence.q).subspan(from), sizes.heads, first);
  const bool moba = sequence.policy.mode == AttentionMode::moba;
  int near_ties = 0;
  int wrong_blocks = 0;
  double worst = 0;
  const auto dim = static_cast<std::size_t>(sizes.head_dim);
  for (std::int32_t row = first; row < sequence.done; ++row) {
    for (std::int32_t head = 0; head < sizes.heads; ++head) {
      const std::size_t index = static_cast<std::size_t>((row - first) * sizes.heads + head);
      if (moba) {
        const OracleSelection& want = oracle.selections[index];
        const std::vector<std::uint32_t>& words =
            sequence.selected[static_cast<std::size_t>(row * sizes.heads + head)];
        std::vector<std::int32_t> got;
        for (std::int32_t b = 0; b < row / sequence.policy.block; ++b) {
          if (words[static_cast<std::size_t>(b / 32)] >> (b % 32) & 1U) got.push_back(b);
        }
        got.push_back(row / sequence.policy.block);
        if (!fixture.shows_selection() && want.gap < kNearTie) {
          ++near_ties;
          continue;
        }
        if (fixture.shows_selection() && got != want.blocks) {
          ++(want.gap < kNearTie ? near_ties : wrong_blocks);
          continue;  // its output is another one
        }
      }
      double difference = 0;
      double norm = 0;
      for (std::size_t d = 0; d < dim; ++d) {
        const double want = oracle.out[index * dim + d];
        const double got = double{sequence.out[from + index * dim + d]};
        difference += (got - want) * (got - want);
        norm += want * want;
      }
      const double error = std::sqrt(difference / norm);
      worst = std::isfinite(error) ? std::max(worst, error) : INFINITY;
    }
  }
  std::string detail = "worst error " + text(worst);
  if (moba) {
    detail += ", other blocks " + std::to_string(wrong_blocks) + ", near ties " +
              std::to_string(near_ties) + " of " + std::to_string(oracle.selections.size());
  }
  report.add({"attention", name, detail, worst < kAllowedError && wrong_blocks == 0});
}

struct Setup {
  AttentionSizes sizes;
  AttentionPolicy policy;
  std::int32_t tokens = 0;
  AttentionKernels kernels = AttentionKernels::plain;
};

std::string name_of(const Setup& setup) {
  return name_of_sizes(setup.sizes) + ", " + std::to_string(setup.tokens) + " tokens, " +
         name_of_policy(setup.policy) +
         (setup.kernels == AttentionKernels::hopper ? ", hopper" : "");
}

StepLimits limits_of(std::int32_t rows, std::int32_t context) {
  return {rows, 8, context};
}

std::int32_t pages_for(const Setup& setup, std::int32_t sequences) {
  return sequences * (setup.tokens / setup.sizes.page_tokens + 1) + 3;
}

/// A sequence in one piece, in chunks, with others beside it and token by token.
void cutting_cases(const Setup& setup, Report& report) {
  const std::string name = name_of(setup);
  AttentionFixture fixture(setup.sizes, limits_of(2 * setup.tokens, setup.tokens),
                           pages_for(setup, 6), setup.kernels);
  TestSequence whole = fixture.make_sequence(setup.tokens, setup.policy, 11);
  fixture.run(whole, setup.tokens);
  check_cache(fixture, whole, name, report);
  check_rows(fixture, whole, 0, name, report);

  for (const std::int32_t chunk : {7, 50}) {
    TestSequence cut = fixture.make_sequence(setup.tokens, setup.policy, 11);
    // No chunk of one row: that is decode, with another order of sums.
    while (cut.done < cut.tokens) {
      std::int32_t rows = std::min(chunk, cut.tokens - cut.done);
      if (cut.tokens - cut.done - rows == 1) ++rows;
      const TestSlice slice{&cut, rows};
      fixture.step(std::span(&slice, 1));
    }
    const bool equal = cut.out == whole.out && cut.q == whole.q;
    report.add({"chunking", name + ", by " + std::to_string(chunk),
                equal ? "bit-equal" : "bits differ", equal});
  }

  // Half of it, then token by token beside other sequences, and the same alone.
  const std::int32_t half = setup.tokens / 2;
  const std::int32_t steps = std::min(setup.tokens - half, 20);
  TestSequence alone = fixture.make_sequence(setup.tokens, setup.policy, 11);
  TestSequence beside = fixture.make_sequence(setup.tokens, setup.policy, 11);
  TestSequence other = fixture.make_sequence(setup.tokens, AttentionPolicy::full(), 12);
  const TestSlice first{&alone, half};
  fixture.step(std::span(&first, 1));
  const TestSlice both[] = {{&other, 3}, {&beside, half}};
  fixture.step(both);
  for (std::int32_t i = 0; i < steps; ++i) {
    const TestSlice one{&alone, 1};
    fixture.step(std::span(&one, 1));
    const TestSlice two[] = {{&beside, 1}, {&other, i % 3 == 0 ? 2 : 1}};
    fixture.step(two);
  }
  const bool equal = alone.out == beside.out;
  report.add({"batching", name, equal ? "bit-equal" : "bits differ", equal});
  check_rows(fixture, alone, half, name + ", decode", report);
  check_cache(fixture, alone, name + ", decode", report);
  check_cache(fixture, beside, name + ", beside others", report);
}

/// A long context whose last rows alone are checked.
void long_case(const Setup& setup, Report& report) {
  const std::string name = name_of(setup);
  AttentionFixture fixture(setup.sizes, limits_of(setup.tokens, setup.tokens), pages_for(setup, 1),
                           setup.kernels);
  TestSequence sequence = fixture.make_sequence(setup.tokens, setup.policy, 13);
  const std::int32_t last = 3;
  const TestSlice most{&sequence, setup.tokens - 2 * last};
  fixture.step(std::span(&most, 1));
  const TestSlice tail{&sequence, last};
  fixture.step(std::span(&tail, 1));
  for (std::int32_t i = 0; i < last; ++i) {
    const TestSlice one{&sequence, 1};
    fixture.step(std::span(&one, 1));
  }
  check_rows(fixture, sequence, setup.tokens - 3 * last, name + ", the end", report);
}

/// An fp8 cache beside one of bf16 that holds the same values: prefill gives the same bits. Decode
/// under full attention takes 128 tokens at once instead of 64, so that probabilities belong to
/// other maxima before they are rounded to bf16. Two such roundings and two of the results, each
/// 2^-9 / sqrt(3) of a value at most, make 0.0023 of random rows; an error in codes or scales far
/// more.
void same_values_case(const Setup& setup, Report& report) {
  constexpr std::int32_t kDecoded = 5;
  const auto run = [&](AttentionFixture& fixture, TestSequence& sequence) {
    const TestSlice prompt{&sequence, setup.tokens - kDecoded};
    fixture.step(std::span(&prompt, 1));
    for (std::int32_t i = 0; i < kDecoded; ++i) {
      const TestSlice one{&sequence, 1};
      fixture.step(std::span(&one, 1));
    }
  };
  AttentionFixture fixture(setup.sizes, limits_of(setup.tokens, setup.tokens), pages_for(setup, 1),
                           setup.kernels);
  fixture.stop_rotating();
  TestSequence sequence = fixture.make_sequence(setup.tokens, setup.policy, 17);
  run(fixture, sequence);

  AttentionSizes sizes = setup.sizes;
  sizes.fp8 = false;
  AttentionFixture plain(sizes, limits_of(setup.tokens, setup.tokens), pages_for(setup, 1),
                         setup.kernels);
  plain.stop_rotating();
  TestSequence same = plain.make_sequence(setup.tokens, setup.policy, 17);
  const OracleSequence cached = fixture.gather(sequence);
  const auto kv = static_cast<std::size_t>(sizes.kv_heads * sizes.head_dim);
  const std::size_t columns = static_cast<std::size_t>(sizes.heads * sizes.head_dim) + 2 * kv;
  for (std::size_t token = 0; token < static_cast<std::size_t>(setup.tokens); ++token) {
    float* row = same.qkv.data() + (token + 1) * columns - 2 * kv;
    std::copy_n(cached.keys.begin() + static_cast<std::ptrdiff_t>(token * kv), kv, row);
    std::copy_n(cached.values.begin() + static_cast<std::ptrdiff_t>(token * kv), kv, row + kv);
  }
  run(plain, same);
  const auto q_columns = static_cast<std::ptrdiff_t>(sizes.heads * sizes.head_dim);
  const std::ptrdiff_t split = (setup.tokens - kDecoded) * q_columns;
  const bool equal =
      std::equal(sequence.out.begin(), sequence.out.begin() + split, same.out.begin()) &&
      sequence.q == same.q;
  const std::vector<double> want(same.out.begin() + split, same.out.end());
  const double error =
      relative_error(std::span(sequence.out).subspan(static_cast<std::size_t>(split)), want);
  report.add({"attention", name_of(setup) + ", beside bf16 of the same values",
              std::string(equal ? "prefill bit-equal" : "prefill's bits differ") + ", decode " +
                  text(error),
              equal && error < 3e-3});
}

/// The last rows of sequences of several lengths token by token: each alone, and all in one step.
/// Every `checked`-th is also held against the oracle.
void decode_lengths(const AttentionSizes& sizes, const std::vector<std::int32_t>& lengths,
                    int checked, Report& report) {
  constexpr std::int32_t kSteps = 3;
  const std::int32_t longest = *std::max_element(lengths.begin(), lengths.end());
  const auto count = static_cast<std::int32_t>(lengths.size());
  std::int32_t pages = 3;
  for (const std::int32_t length : lengths) pages += 2 * (length / sizes.page_tokens + 1);
  AttentionFixture fixture(sizes, {std::max(longest, count), count, longest}, pages,
                           AttentionKernels::plain);
  const std::string name = name_of_sizes(sizes) + ", decode beside " + std::to_string(count - 1) +
                           " others, up to " + std::to_string(longest) + " tokens";
  std::vector<TestSequence> alone;
  std::vector<TestSequence> beside;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    for (std::vector<TestSequence>* sequences : {&alone, &beside}) {
      sequences->push_back(fixture.make_sequence(lengths[i], AttentionPolicy::full(), 100 + i));
      const TestSlice most{&sequences->back(), std::max(lengths[i] - kSteps, 0)};
      if (most.rows > 0) fixture.step(std::span(&most, 1));
    }
  }
  for (std::int32_t step = 0; step < kSteps; ++step) {
    std::vector<TestSlice> slices;
    for (TestSequence& sequence : beside) {
      if (sequence.done < sequence.tokens) slices.push_back({&sequence, 1});
    }
    fixture.step(slices);
  }
  bool equal = true;
  for (std::size_t i = 0; i < alone.size(); ++i) {
    while (alone[i].done < alone[i].tokens) {
      const TestSlice one{&alone[i], 1};
      fixture.step(std::span(&one, 1));
    }
    equal = equal && alone[i].out == beside[i].out;
    if (i % static_cast<std::size_t>(checked) != 0) continue;
    check_rows(fixture, beside[i], std::max(lengths[i] - kSteps, 0),
               name + ": " + std::to_string(lengths[i]), report);
  }
  report.add({"batching", name, equal ? "bit-equal" : "bits differ", equal});
}

void decode_cases(bool fp8, Report& report) {
  const auto decode_case = [&](AttentionSizes sizes, const std::vector<std::int32_t>& lengths,
                               int checked) {
    sizes.fp8 = fp8;
    decode_lengths(sizes, lengths, checked, report);
  };
  // Ends of groups of 8 tokens, pieces of 64, pages, and parts: of 64 keys up to 1,024 with 8 KV
  // heads (132 / 8 parts), up to 4,224 with 2.
  const std::vector<std::int32_t> lengths = {1,   2,   8,   9,    63,   64,   65,   127,
                                             128, 129, 130, 1023, 1024, 1027, 3000, 4227};
  decode_case({8, 2, 128, 128, 0}, lengths, 1);
  decode_case({32, 8, 128, 128, 0}, {1, 66, 1026, 1100, 2051}, 1);
  decode_case({14, 2, 64, 16, 0}, {1, 17, 200, 1500}, 1);
  decode_case({3, 3, 64, 48, 0}, {2, 49, 50, 193, 700}, 1);
  decode_case({8, 1, 128, 80, 0}, {5, 81, 300, 900}, 1);
  std::vector<std::int32_t> many;
  for (std::int32_t i = 0; i < 64; ++i) many.push_back(1 + i * 53 % 601);
  decode_case({8, 2, 128, 32, 0}, many, 9);
  // Numbers of rows at which blocks take runs of other lengths: equal rows, and one that is long
  // among short ones.
  for (const std::int32_t count : {4, 16, 33}) {
    many.assign(static_cast<std::size_t>(count), 1024);
    decode_case({8, 2, 128, 64, 0}, many, count);
  }
  for (const std::int32_t count : {16, 64, 256}) {
    many.clear();
    for (std::int32_t i = 0; i < count; ++i) many.push_back(1 + i * 53 % 301);
    many[static_cast<std::size_t>(count / 2)] = 5000;
    decode_case({8, 4, 64, 32, 0}, many, count / 8);
  }
  many.assign({70, 65600, 300});
  decode_case({4, 1, 128, 128, 0}, many, 1);
}

}  // namespace

void run_attention_cases(const Options& options, Report& report) {
  const auto full = AttentionPolicy::full();
  const auto moba = [](std::int32_t block, std::int32_t top_k) {
    return AttentionPolicy::moba(block, top_k);
  };
  if (options.small) {
    cutting_cases({{4, 1, 64, 16, 16}, moba(16, 2), 70}, report);
    cutting_cases({{4, 2, 128, 16, 0}, full, 40}, report);
    decode_lengths({4, 2, 128, 16, 0}, {1, 70, 130}, 1, report);
    return;
  }
  const std::vector<Setup> setups = {
      {{8, 2, 128, 32, 0}, full, 333},         {{8, 2, 64, 16, 0}, full, 200},
      {{4, 4, 32, 16, 0}, full, 130},          {{6, 2, 128, 48, 0}, full, 150},
      {{16, 1, 64, 16, 0}, full, 90},          {{8, 2, 128, 32, 64}, moba(64, 3), 500},
      {{8, 2, 128, 32, 0}, moba(64, 3), 500},  {{8, 2, 64, 16, 16}, moba(16, 4), 300},
      {{4, 4, 32, 16, 48}, moba(48, 2), 300},  {{6, 2, 128, 48, 48}, moba(48, 1), 300},
      {{8, 2, 128, 16, 64}, moba(32, 5), 300}, {{8, 2, 128, 16, 64}, moba(64, 100), 300},
      {{8, 8, 128, 16, 16}, moba(16, 3), 200}, {{14, 2, 64, 128, 128}, moba(128, 2), 600},
  };
  for (const Setup& setup : setups) cutting_cases(setup, report);
  decode_cases(false, report);
  for (const AttentionKernels kernels : {AttentionKernels::plain, AttentionKernels::hopper}) {
    cutting_cases({{8, 2, 128, 128, 0}, full, 700, kernels}, report);
    cutting_cases({{8, 2, 128, 64, 128}, moba(128, 3), 900, kernels}, report);
    cutting_cases({{8, 2, 64, 64, 0}, moba(64, 4), 900, kernels}, report);
    long_case({{4, 1, 128, 128, 0}, full, 9000, kernels}, report);
    long_case({{4, 1, 128, 128, 512}, moba(512, 4), 9000, kernels}, report);
  }
  long_case({{4, 1, 64, 16, 16}, moba(16, 8), 9000}, report);
}

void run_kv_fp8_cases(const Options& options, Report& report) {
  const auto full = AttentionPolicy::full();
  const auto moba = [](std::int32_t block, std::int32_t top_k) {
    return AttentionPolicy::moba(block, top_k);
  };
  if (options.small) {
    cutting_cases({{4, 1, 64, 16, 16, true}, moba(16, 2), 70}, report);
    cutting_cases({{4, 2, 128, 16, 0, true}, full, 40}, report);
    cutting_cases({{4, 2, 128, 64, 64, true}, moba(64, 2), 200, AttentionKernels::hopper}, report);
    decode_lengths({4, 2, 128, 16, 0, true}, {1, 70, 130, 260}, 1, report);
    same_values_case({{4, 2, 128, 64, 0, true}, full, 150, AttentionKernels::hopper}, report);
    return;
  }
  const std::vector<Setup> setups = {
      {{8, 2, 128, 32, 0, true}, full, 333},         {{8, 2, 64, 16, 0, true}, full, 200},
      {{4, 4, 32, 16, 0, true}, full, 130},          {{6, 2, 128, 48, 0, true}, full, 150},
      {{16, 1, 64, 16, 0, true}, full, 90},          {{8, 2, 128, 32, 64, true}, moba(64, 3), 500},
      {{8, 2, 64, 16, 16, true}, moba(16, 4), 300},  {{4, 4, 32, 16, 48, true}, moba(48, 2), 300},
      {{8, 8, 128, 16, 16, true}, moba(16, 3), 200},
  };
  for (const Setup& setup : setups) cutting_cases(setup, report);
  for (const AttentionKernels kernels : {AttentionKernels::plain, AttentionKernels::hopper}) {
    cutting_cases({{8, 2, 128, 128, 0, true}, full, 700, kernels}, report);
    cutting_cases({{8, 2, 128, 64, 128, true}, moba(128, 3), 900, kernels}, report);
    cutting_cases({{8, 2, 64, 64, 0, true}, moba(64, 4), 900, kernels}, report);
    cutting_cases({{8, 8, 128, 64, 0, true}, moba(64, 2), 500, kernels}, report);
    long_case({{4, 1, 128, 128, 0, true}, full, 9000, kernels}, report);
    long_case({{4, 1, 128, 128, 512, true}, moba(512, 4), 9000, kernels}, report);
    same_values_case({{8, 2, 128, 128, 0, true}, full, 600, kernels}, report);
    same_values_case({{8, 4, 64, 64, 0, true}, full, 300, kernels}, report);
    same_values_case({{8, 2, 128, 64, 64, true}, moba(64, 3), 900, kernels}, report);
  }
  decode_cases(true, report);
}

}  // namespace mobius::gpu
