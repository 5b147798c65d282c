#include <algorithm>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/oracle/attention.h"
#include "tests/gpu/attention_fixture.h"
#include "tests/gpu/cases.h"

namespace mobius::gpu {
namespace {

/// Scores this close may be ordered otherwise than in float64, as in attention_cases.cc.
constexpr double kNearTie = 1e-4;
constexpr std::int32_t kUntouched = -7;

std::string name_of(const AttentionSizes& sizes, const AttentionPolicy& policy,
                    std::int32_t tokens) {
  return std::to_string(sizes.heads) + "/" + std::to_string(sizes.kv_heads) + " heads of " +
         std::to_string(sizes.head_dim) + ", page " + std::to_string(sizes.page_tokens) +
         (sizes.centroid_block > 0 ? ", stored " + std::to_string(sizes.centroid_block) : "") +
         ", " + std::to_string(tokens) + " tokens, moba " + std::to_string(policy.block) + "/" +
         std::to_string(policy.top_k);
}

// ---- one layer against the oracle -----------------------------------------------------------

void check_told(AttentionFixture& fixture, const TestSequence& sequence, const std::string& name,
                Report& report) {
  const std::int32_t heads = fixture.sizes.heads;
  const auto columns = static_cast<std::size_t>(heads * fixture.sizes.head_dim);
  const OracleSequence cached = fixture.gather(sequence);
  int lists = 0;
  int wrong = 0;
  int near_ties = 0;
  for (const auto& [position, told] : sequence.told) {
    const auto query =
        std::span(sequence.q).subspan(static_cast<std::size_t>(position) * columns, columns);
    const OracleAttention oracle =
        oracle_attention(cached, sequence.policy, query, heads, position);
    const auto count = attended_blocks(sequence.policy, position);
    for (std::int32_t head = 0; head < heads; ++head) {
      const OracleSelection& want = oracle.selections[static_cast<std::size_t>(head)];
      const auto first = told.begin() + std::ptrdiff_t{head} * count;
      ++lists;
      if (std::equal(want.blocks.begin(), want.blocks.end(), first, first + count)) continue;
      ++(want.gap < kNearTie ? near_ties : wrong);
    }
  }
  report.add({"routing", name,
              std::to_string(lists) + " lists, other blocks " + std::to_string(wrong) +
                  ", near ties " + std::to_string(near_ties),
              lists > 0 && wrong == 0 && near_ties < lists});
}

/// A prompt in pieces and token by token, alone and beside sequences that ask, that do not, and
/// that attend everything.
void oracle_case(const AttentionSizes& sizes, const AttentionPolicy& policy, std::int32_t tokens,
                 AttentionKernels kernels, Report& report) {
  const std::string name =
      name_of(sizes, policy, tokens) + (kernels == AttentionKernels::hopper ? ", hopper" : "");
  const std::int32_t pages = 5 * (tokens / sizes.page_tokens + 1);
  AttentionFixture fixture(sizes, {2 * tokens, 8, tokens}, pages, kernels);
  TestSequence whole = fixture.make_sequence(tokens, policy, 41);
  const TestSlice all{&whole, tokens, true};
  fixture.step(std::span(&all, 1));

  TestSequence pieces = fixture.make_sequence(tokens, policy, 41);
  TestSequence other = fixture.make_sequence(tokens, AttentionPolicy::full(), 42);
  TestSequence silent = fixture.make_sequence(tokens, policy, 43);
  const TestSlice early[] = {{&other, 3}, {&pieces, tokens / 2, true}, {&silent, tokens / 2 - 9}};
  fixture.step(early);
  const TestSlice late[] = {{&silent, 5}, {&pieces, tokens / 2 - 8, true}, {&other, 2}};
  fixture.step(late);
  while (pieces.done < tokens) {
    const TestSlice one[] = {{&silent, 1}, {&pieces, 1, true}, {&other, 1}};
    fixture.step(one);
  }
  check_told(fixture, whole, name + ", a prompt", report);
  check_told(fixture, pieces, name + ", pieces and decode", report);
}

// ---- whole steps through the backend ----------------------------------------------------------

constexpr std::int32_t kHeads = 4;
constexpr std::int32_t kKvHeads = 2;
constexpr std::int32_t kHeadDim = 64;
constexpr std::int32_t kHidden = 128;
constexpr std::int32_t kVocab = 256;
constexpr std::int32_t kLayers = 3;
constexpr std::int32_t kRows = 512;

/// Attention alone, layer after layer, in the operations of a backend.
class AttentionModel {
 public:
  AttentionModel(std::int32_t page_tokens, std::int32_t context) : backend_(make_cuda_backend(0)) {
    std::mt19937_64 random(29);
    const auto load = [&](std::int64_t rows, std::int64_t cols, DType dtype) {
      const std::vector<float> values =
          random_values(static_cast<std::size_t>(rows * cols), random, rows > 1 ? 0.1F : 1.0F);
      const HostTensor host{values.data(), DType::f32, rows, cols};
      return backend_->load_weight(std::span(&host, 1), dtype);
    };
    table_ = load(kVocab, kHidden, DType::bf16);
    norm_ = load(1, kHidden, DType::f32);
    rotation_ = load(1, kHeadDim / 2, DType::f32);
    qkv_ = load((kHeads + 2 * kKvHeads) * kHeadDim, kHidden, DType::bf16);
    output_ = load(kHidden, kHeads * kHeadDim, DType::bf16);
    const std::int32_t pages = 4 * (context / page_tokens + 1);
    const KvShape kv{kLayers, pages, page_tokens, kKvHeads, kHeadDim, DType::bf16, 0};
    backend_->reserve_workspace(
        {kHidden, kHeads, kKvHeads, kHeadDim, kHidden, kVocab, DType::bf16, false}, kv,
        {kRows, 4, context});
    pool_ = backend_->create_kv_pool(kv);
  }

  /// Logits of the rows wanted.
  std::vector<float> run(const StepView& step) {
    const auto rows = static_cast<std::int64_t>(step.tokens.size());
    const auto wanted = static_cast<std::int64_t>(step.logit_rows.size());
    const Tensor x = x_.tensor().head(rows);
    const Tensor h = h_.tensor().head(rows);
    const Tensor q = q_.tensor().head(rows);
    const Tensor out = out_.tensor().head(rows);
    backend_->begin_step(step);
    backend_->embed(x, table_);
    for (std::int32_t layer = 0; layer < kLayers; ++layer) {
      backend_->rms_norm(h, x, norm_, 1e-5F);
      backend_->matmul(projected_.tensor().head(rows), h, qkv_, false);
      backend_->rope_append(q, projected_.tensor().head(rows), *pool_, layer, rotation_);
      backend_->attention(out, q, *pool_, layer);
      backend_->matmul(x, out, output_, true);
    }
    backend_->gather_rows(sampled_.tensor().head(wanted), x);
    backend_->rms_norm(h_.tensor().head(wanted), sampled_.tensor().head(wanted), norm_, 1e-5F);
    const Tensor logits = logits_.tensor().head(wanted);
    backend_->matmul(logits, h_.tensor().head(wanted), table_, false);
    std::vector<float> host(static_cast<std::size_t>(logits.rows * kVocab));
    backend_->download(host.data(), logits);
    backend_->wait();
    return host;
  }

 private:
  std::unique_ptr<Backend> backend_;
  Weight table_, norm_, rotation_, qkv_, output_;
  std::unique_ptr<KvPool> pool_;
  DeviceMatrix x_{DType::f32, kRows, kHidden};
  DeviceMatrix h_{DType::bf16, kRows, kHidden};
  DeviceMatrix projected_{DType::f32, kRows, (kHeads + 2 * kKvHeads) * kHeadDim};
  DeviceMatrix q_{DType::bf16, kRows, kHeads* kHeadDim};
  DeviceMatrix out_{DType::bf16, kRows, kHeads* kHeadDim};
  DeviceMatrix sampled_{DType::f32, kRows, kHidden};
  DeviceMatrix logits_{DType::f32, 4, kVocab};
};

struct Stream {
  std::vector<std::int32_t> tokens;
  std::vector<PageId> pages;
  AttentionPolicy policy;
  std::int32_t done = 0;
};

/// What a stream's rows were told and gave, by position.
struct Seen {
  std::map<std::int32_t, std::vector<std::int32_t>> told;
  std::map<std::int32_t, std::vector<float>> logits;
};

/// One step of some streams' next rows; the first one's last row is seen, and asks if `asks`.
void advance(AttentionModel& model, const std::vector<std::pair<Stream*, std::int32_t>>& parts,
             std::int32_t full_last, bool asks, Seen& seen) {
  std::vector<std::int32_t> tokens;
  std::vector<SequenceSlice> slices;
  std::vector<std::int32_t> attended;
  Stream& first = *parts.front().first;
  const std::int32_t position = first.done + parts.front().second - 1;
  if (asks) {
    attended.assign(
        static_cast<std::size_t>(kLayers * kHeads * attended_blocks(first.policy, position)),
        kUntouched);
  }
  for (const auto& [stream, rows] : parts) {
    slices.push_back({static_cast<std::int32_t>(tokens.size()), rows, stream->done, stream->pages,
                      stream->policy, full_last});
    const auto begin = stream->tokens.begin() + stream->done;
    tokens.insert(tokens.end(), begin, begin + rows);
    stream->done += rows;
  }
  slices.front().attended = attended;
  const std::vector<std::int32_t> last = {parts.front().second - 1};
  seen.logits[position] = model.run({tokens, slices, last});
  if (asks) seen.told[position] = attended;
}

/// Lists are ascending, end with the row's own block, and those of full layers are left alone.
bool well_formed(const Seen& seen, const AttentionPolicy& policy, std::int32_t full_last) {
  for (const auto& [position, told] : seen.told) {
    const std::int32_t count = attended_blocks(policy, position);
    for (std::int32_t list = 0; list < kLayers * kHeads; ++list) {
      const auto first = told.begin() + std::ptrdiff_t{list} * count;
      if (list >= (kLayers - full_last) * kHeads) {
        if (std::count(first, first + count, kUntouched) != count) return false;
        continue;
      }
      const bool ascending =
          std::adjacent_find(first, first + count, std::greater_equal<>()) == first + count;
      if (!ascending || first[0] < 0 || first[count - 1] != position / policy.block) return false;
    }
  }
  return !seen.told.empty();
}

/// Decode steps told from a recorded graph, beside a prompt (operation by operation) and with
/// nobody asking now and then: the same lists, and the same logits as when nobody asks at all.
void step_case(std::int32_t page, const AttentionPolicy& policy, std::int32_t full_last,
               std::int32_t steps, Report& report) {
  constexpr std::int32_t kPrompt = 400;
  const std::int32_t context = kPrompt + steps;
  AttentionModel model(page, context);
  PageId next = 0;
  const auto make = [&](std::uint64_t seed) {
    Stream stream;
    std::mt19937_64 random(seed);
    for (std::int32_t i = 0; i < context; ++i) {
      stream.tokens.push_back(static_cast<std::int32_t>(random() % kVocab));
    }
    for (std::int32_t i = 0; i * page < context; ++i) stream.pages.push_back(next++);
    stream.policy = policy;
    return stream;
  };
  Stream alone = make(3);
  Stream crowded = make(3);
  Stream silent = make(3);
  Stream beside = make(4);
  Seen want;
  Seen got;
  Seen quiet;
  advance(model, {{&alone, kPrompt}}, full_last, true, want);
  advance(model, {{&silent, kPrompt}}, full_last, false, quiet);
  // Pieces of two rows or more have the bits of the whole.
  advance(model, {{&crowded, 170}}, full_last, true, got);
  advance(model, {{&crowded, kPrompt - 170}, {&beside, 40}}, full_last, true, got);
  got.told.erase(169);
  got.logits.erase(169);
  for (std::int32_t s = 0; s < steps; ++s) {
    advance(model, {{&alone, 1}}, full_last, s % 5 != 3, want);
    advance(model, {{&silent, 1}}, full_last, false, quiet);
    advance(model, {{&crowded, 1}, {&beside, s % 3 == 0 ? 2 : 1}}, full_last, s % 5 != 3, got);
  }
  const std::string name = "page " + std::to_string(page) + ", moba " +
                           std::to_string(policy.block) + "/" + std::to_string(policy.top_k) +
                           ", last " + std::to_string(full_last) + " full";
  const bool form = well_formed(want, policy, full_last);
  report.add({"routing", name + ", lists", form ? "well-formed" : "malformed", form});
  report.add({"routing", name + ", alone and in a crowd",
              got.told == want.told ? "same lists" : "lists differ", got.told == want.told});
  const bool equal = want.logits == quiet.logits && got.logits == quiet.logits;
  report.add({"routing", name + ", asked and not", equal ? "bit-equal" : "bits differ", equal});
}

void refusal_cases(Report& report) {
  AttentionModel model(64, 300);
  const auto refuses = [&](const char* name, const AttentionPolicy& policy, std::size_t numbers) {
    Stream stream{std::vector<std::int32_t>(300, 1), {0, 1, 2, 3, 4}, policy};
    std::vector<std::int32_t> place(numbers);
    const SequenceSlice slice{0, 300, 0, stream.pages, policy, 0, place};
    bool refused = false;
    try {
      model.run({stream.tokens, std::span(&slice, 1), {}});
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    report.add({"refusals", name, refused ? "refused" : "taken", refused});
  };
  const auto moba = AttentionPolicy::moba(64, 3);
  refuses("a place for blocks that is too small", moba, kLayers * kHeads * 3 - 1);
  refuses("a place for blocks that is too large", moba, kLayers * kHeads * 4);
  refuses("blocks of a slice under full attention", AttentionPolicy::full(), kLayers * kHeads);
}

}  // namespace

void run_routing_cases(const Options& options, Report& report) {
  const auto moba = [](std::int32_t block, std::int32_t top_k) {
    return AttentionPolicy::moba(block, top_k);
  };
  if (options.small) {
    oracle_case({4, 1, 64, 16, 16}, moba(16, 2), 70, AttentionKernels::plain, report);
    oracle_case({4, 2, 64, 64, 64}, moba(64, 2), 300, AttentionKernels::hopper, report);
    step_case(64, moba(64, 3), 1, 3, report);
    return;
  }
  oracle_case({8, 2, 128, 32, 64}, moba(64, 3), 500, AttentionKernels::plain, report);
  oracle_case({8, 2, 64, 16, 0}, moba(16, 40), 900, AttentionKernels::plain, report);
  oracle_case({4, 4, 32, 16, 0}, moba(48, 1), 300, AttentionKernels::plain, report);
  oracle_case({8, 2, 64, 16, 0}, moba(64, 100), 300, AttentionKernels::plain, report);
  for (const AttentionKernels kernels : {AttentionKernels::plain, AttentionKernels::hopper}) {
    oracle_case({8, 2, 128, 64, 128}, moba(128, 3), 1500, kernels, report);
    oracle_case({8, 2, 64, 64, 0}, moba(64, 9), 1500, kernels, report);
    // Beyond what the fast kernels' lists or memory hold: the plain ones tell.
    oracle_case({8, 2, 64, 64, 0}, moba(64, 20), 3000, kernels, report);
    oracle_case({4, 1, 128, 128, 512}, moba(512, 4), 9000, kernels, report);
  }
  for (const std::int32_t page : {16, 64}) {
    step_case(page, moba(64, 3), 1, 40, report);
    step_case(page, moba(128, 2), 0, 40, report);
    step_case(page, moba(64, 70), 0, 10, report);
    step_case(page, moba(64, 1), 1, 10, report);
  }
  refusal_cases(report);
}

}  // namespace mobius::gpu
