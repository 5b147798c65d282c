#include "models/llama_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "models/generate/checkpoint_spec.h"
#include "models/generate/write_checkpoint.h"
#include "tests/unit/models/scratch.h"
#include "tests/unit/models/sequence.h"

namespace mobius {
namespace {

using testing::HasSubstr;

LlamaConfig small_config() {
  LlamaConfig config = shape_preset("tiny");
  config.num_layers = 3;
  config.num_kv_heads = 2;
  return config;
}

ModelOptions options_for(const ScratchFolder& folder) {
  ModelOptions options;
  options.folder = folder.path();
  options.page_tokens = 16;
  options.kv_cache_bytes = 4 << 20;
  options.step_tokens = 512;
  options.max_sequences = 512;
  options.threads = 2;
  return options;
}

std::vector<std::int32_t> some_tokens(std::size_t count, std::int32_t seed) {
  std::vector<std::int32_t> tokens(count);
  std::uint32_t state = static_cast<std::uint32_t>(seed) * 2654435761U + 12345U;
  for (std::int32_t& token : tokens) {
    state = state * 1664525U + 1013904223U;
    token = static_cast<std::int32_t>(state >> 8) % 309;
  }
  return tokens;
}

/// A runner over a generated checkpoint, bf16 as stored unless said otherwise.
struct Fixture {
  explicit Fixture(DType stored = DType::bf16, std::optional<DType> compute = std::nullopt) {
    write_checkpoint(small_config(), {.seed = 2, .dtype = stored}, folder.path());
    ModelOptions options = options_for(folder);
    options.compute_dtype = compute;
    runner = load_llama(options);
  }
  ScratchFolder folder;
  std::unique_ptr<LlamaRunner> runner;
};

void expect_same_bits(std::span<const float> a, std::span<const float> b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size_bytes()), 0);
}

struct Attention {
  const char* name;
  AttentionPolicy policy;
};

class LlamaBits : public testing::TestWithParam<Attention> {
 protected:
  Sequence sequence(std::int32_t first_page, std::int32_t pages) const {
    return {.pages = Sequence::page_range(first_page, pages),
            .policy = GetParam().policy,
            .full_attention_last_layers = 1};
  }
};

TEST_P(LlamaBits, ChunkingChangesNothing) {
  Fixture fixture;
  const std::vector<std::int32_t> tokens = some_tokens(200, 1);
  Sequence whole = sequence(0, 13);
  const std::vector<float> expected = logits_of(*fixture.runner, whole, tokens, 200);
  for (const std::size_t chunk : {1U, 7U, 16U, 64U, 199U}) {
    Sequence cut = sequence(20, 13);
    expect_same_bits(expected, logits_of(*fixture.runner, cut, tokens, chunk));
  }
}

TEST_P(LlamaBits, CompanyChangesNothing) {
  Fixture fixture;
  LlamaRunner& runner = *fixture.runner;
  const auto vocab = static_cast<std::size_t>(runner.config().vocab_size);
  const std::vector<std::vector<std::int32_t>> prompts = {some_tokens(97, 1), some_tokens(33, 2),
                                                          some_tokens(150, 3)};
  std::vector<std::vector<float>> alone;
  for (const auto& prompt : prompts) {
    Sequence single = sequence(0, 12);
    alone.push_back(logits_of(runner, single, prompt, 512));
  }
  // All three in one step, then one more token each, in another order.
  std::vector<Sequence> together = {sequence(0, 12), sequence(30, 12), sequence(15, 12)};
  PackedStep step;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    step.add(together[i], std::span(prompts[i]).first(prompts[i].size() - 1));
  }
  runner.forward(step.view({}), {});
  PackedStep last;
  for (const std::size_t i : {2U, 0U, 1U}) {
    last.add(together[i], std::span(prompts[i]).last(1));
  }
  std::vector<float> logits(3 * vocab);
  const std::vector<std::int32_t> rows = {0, 1, 2};
  runner.forward(last.view(rows), logits);
  const std::size_t order[] = {2, 0, 1};
  for (std::size_t row = 0; row < 3; ++row) {
    expect_same_bits(std::span<const float>(logits).subspan(row * vocab, vocab),
                     std::span<const float>(alone[order[row]]).last(vocab));
  }
}

TEST_P(LlamaBits, AnyBatchChangesNothing) {
  struct Member {
    std::vector<std::int32_t> tokens;
    std::vector<float> alone;
    Sequence sequence;
  };
  Fixture fixture;
  LlamaRunner& runner = *fixture.runner;
  const auto vocab = static_cast<std::size_t>(runner.config().vocab_size);
  std::mt19937 random(6);
  constexpr std::int32_t kMembers = 24;
  constexpr std::int32_t kPages = 6;
  std::vector<Member> members(kMembers);
  for (std::int32_t i = 0; i < kMembers; ++i) {
    Member& member = members[static_cast<std::size_t>(i)];
    member.tokens = some_tokens(1 + random() % (kPages * 16), i);
    Sequence single = sequence(kMembers * kPages, kPages);
    member.alone = logits_of(runner, single, member.tokens, 512);
    member.sequence = sequence(i * kPages, kPages);
  }
  // Continuous batching at random: from one row to hundreds, chunks beside single tokens.
  struct Part {
    const Member* member;
    std::size_t first, rows;
  };
  std::vector<Member*> waiting;
  for (Member& member : members) waiting.push_back(&member);
  while (!waiting.empty()) {
    std::shuffle(waiting.begin(), waiting.end(), random);
    PackedStep step;
    std::vector<Part> parts;
    const std::size_t width = 1 + random() % waiting.size();
    for (Member* member : std::span(waiting).first(width)) {
      const auto first = static_cast<std::size_t>(member->sequence.cached);
      const std::size_t wanted = random() % 4 == 0 ? 1 + random() % 20 : 1;
      const std::size_t rows = std::min(wanted, member->tokens.size() - first);
      step.add(member->sequence, std::span(member->tokens).subspan(first, rows));
      parts.push_back({member, first, rows});
    }
    std::vector<std::int32_t> rows(static_cast<std::size_t>(step.rows()));
    std::iota(rows.begin(), rows.end(), 0);
    std::vector<float> logits(rows.size() * vocab);
    runner.forward(step.view(rows), logits);
    std::size_t row = 0;
    for (const Part& part : parts) {
      SCOPED_TRACE(testing::Message() << rows.size() << " rows, " << width << " sequences");
      const std::size_t size = part.rows * vocab;
      expect_same_bits(std::span(logits).subspan(row * vocab, size),
                       std::span(part.member->alone).subspan(part.first * vocab, size));
      row += part.rows;
    }
    std::erase_if(waiting, [](const Member* member) {
      return static_cast<std::size_t>(member->sequence.cached) == member->tokens.size();
    });
  }
}

TEST_P(LlamaBits, ThreadsChangeNothing) {
  Fixture fixture;
  ModelOptions options = options_for(fixture.folder);
  options.threads = 1;
  const auto other = load_llama(options);
  const std::vector<std::int32_t> tokens = some_tokens(120, 4);
  Sequence a = sequence(0, 8);
  Sequence b = sequence(0, 8);
  expect_same_bits(logits_of(*fixture.runner, a, tokens, 512), logits_of(*other, b, tokens, 512));
}

INSTANTIATE_TEST_SUITE_P(Policies, LlamaBits,
                         testing::Values(Attention{"full", AttentionPolicy::full()},
                                         Attention{"moba", AttentionPolicy::moba(16, 3)}),
                         [](const testing::TestParamInfo<Attention>& tested) {
                           return std::string(tested.param.name);
                         });

TEST(LlamaRunner, SamplesGreedilyWhatTheLogitsSay) {
  Fixture fixture;
  LlamaRunner& runner = *fixture.runner;
  const auto vocab = static_cast<std::size_t>(runner.config().vocab_size);
  const std::vector<std::int32_t> tokens = some_tokens(50, 5);
  Sequence sequence{.pages = Sequence::page_range(0, 4)};
  const std::vector<float> logits = logits_of(runner, sequence, tokens, 512);

  Sequence again{.pages = Sequence::page_range(8, 4)};
  PackedStep step;
  step.add(again, tokens);
  SamplingParams greedy;
  greedy.temperature = 0;
  std::vector<SampleRow> samples(2);
  for (SampleRow& sample : samples) {
    sample.params = &greedy;
    sample.prompt = tokens;
  }
  const std::vector<std::int32_t> rows = {49, 10};
  runner.submit({step.view(rows), samples});
  const auto sampled = runner.wait();
  ASSERT_EQ(sampled.size(), 2U);
  const std::span<const float> all(logits);
  EXPECT_EQ(sampled[0].token, best_token(all.subspan(49 * vocab, vocab)));
  EXPECT_EQ(sampled[1].token, best_token(all.subspan(10 * vocab, vocab)));
}

TEST(LlamaRunner, StepsWithoutSamplesReturnNone) {
  Fixture fixture;
  Sequence sequence{.pages = Sequence::page_range(0, 4)};
  PackedStep step;
  const std::vector<std::int32_t> tokens = some_tokens(20, 6);
  step.add(sequence, tokens);
  fixture.runner->submit({step.view({}), {}});
  EXPECT_TRUE(fixture.runner->wait().empty());
}

TEST(LlamaRunner, InfoSaysWhatWasPlanned) {
  Fixture fixture;
  const RunnerInfo& info = fixture.runner->info();
  EXPECT_EQ(info.num_layers, 3);
  EXPECT_EQ(info.num_heads, 4);
  EXPECT_EQ(info.num_kv_heads, 2);
  EXPECT_EQ(info.vocab_size, 320);
  EXPECT_EQ(info.page_tokens, 16);
  EXPECT_GT(info.num_pages, 100);
  EXPECT_EQ(info.limits.max_context, info.num_pages * 16);
  EXPECT_THAT(info.device, HasSubstr("cpu"));
}

TEST(LlamaRunner, StoredTypeDecidesComputeType) {
  const Fixture half(DType::f16);
  EXPECT_EQ(half.runner->plan().model.activation, DType::f32);
  EXPECT_GT(half.runner->plan().weights.copied_bytes, 1'000'000U);
  const Fixture forced(DType::f16, DType::bf16);
  EXPECT_EQ(forced.runner->plan().model.activation, DType::bf16);
  const Fixture plain(DType::bf16);
  EXPECT_EQ(plain.runner->plan().model.activation, DType::bf16);
  EXPECT_LT(plain.runner->plan().weights.copied_bytes, 10'000U);  // norms
}

TEST(LlamaRunner, TheCpuRefusesFp8Weights) {
  const ScratchFolder folder;
  write_checkpoint(small_config(), {.seed = 2, .dtype = DType::bf16}, folder.path());
  ModelOptions options = options_for(folder);
  options.fp8_weights = true;
  EXPECT_THAT(message_of([&] { plan_llama(options); }),
              testing::AllOf(HasSubstr("model.quantization is fp8, must be none with cpu"),
                             HasSubstr("only the CUDA backend")));
}

TEST(LlamaRunner, TypesAgreeUpToTheirRounding) {
  const std::vector<std::int32_t> tokens = some_tokens(40, 7);
  const auto last_logits = [&](DType stored, std::optional<DType> compute) {
    Fixture fixture(stored, compute);
    Sequence sequence{.pages = Sequence::page_range(0, 4)};
    std::vector<float> logits = logits_of(*fixture.runner, sequence, tokens, 512);
    logits.erase(logits.begin(), logits.end() - fixture.runner->config().vocab_size);
    return logits;
  };
  const auto distance = [](const std::vector<float>& a, const std::vector<float>& b) {
    double worst = 0;
    double largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      worst = std::max(worst, std::fabs(double{a[i]} - b[i]));
      largest = std::max(largest, std::fabs(double{b[i]}));
    }
    return worst / largest;
  };
  const std::vector<float> exact = last_logits(DType::f32, std::nullopt);
  EXPECT_LT(distance(last_logits(DType::f16, std::nullopt), exact), 0.02);
  EXPECT_LT(distance(last_logits(DType::bf16, std::nullopt), exact), 0.15);
  // bf16 weights in f32 arithmetic carry their own rounding only.
  EXPECT_LT(distance(last_logits(DType::bf16, DType::f32), exact), 0.1);
}

std::size_t resident_bytes() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("VmRSS:")) return std::stoull(line.substr(6)) * 1024;
  }
  return 0;
}

class LlamaMemory : public testing::TestWithParam<DType> {};

TEST_P(LlamaMemory, IsThePlans) {
  const ScratchFolder folder;
  LlamaConfig config = small_config();
  config.intermediate_size = 16384;
  write_checkpoint(config, {.seed = 2, .dtype = GetParam()}, folder.path());
  ModelOptions options = options_for(folder);
  options.kv_cache_bytes = 256 << 20;
  options.step_tokens = 64;
  options.max_sequences = 4;
  const std::size_t before = resident_bytes();
  const auto runner = load_llama(options);
  const auto taken = static_cast<double>(resident_bytes() - before);
  const MemoryPlan& plan = runner->plan();
  const auto promised =
      static_cast<double>(plan.weights.mapped_bytes + plan.weights.copied_bytes + plan.kv_bytes);
  EXPECT_GT(promised, 300e6);
  // All of it, before the first step, and each weight once.
  EXPECT_GT(taken, 0.95 * promised);
  EXPECT_LT(taken, 1.05 * promised + static_cast<double>(plan.workspace_bytes));
}

INSTANTIATE_TEST_SUITE_P(StoredTypes, LlamaMemory, testing::Values(DType::bf16, DType::f16),
                         [](const testing::TestParamInfo<DType>& tested) {
                           return std::string(name_of(tested.param));
                         });

TEST(LlamaRunner, RefusesBadSteps) {
  Fixture fixture;
  LlamaRunner& runner = *fixture.runner;
  Sequence sequence{.pages = Sequence::page_range(0, 40)};
  PackedStep step;
  const std::vector<std::int32_t> tokens = some_tokens(20, 8);
  step.add(sequence, tokens);
  std::vector<float> logits(static_cast<std::size_t>(runner.config().vocab_size));
  const auto forward = [&](const StepView& view, std::int32_t row) {
    StepView with_row = view;
    with_row.logit_rows = std::span(&row, 1);
    return message_of([&] { runner.forward(with_row, logits); });
  };
  EXPECT_THAT(forward(step.view({}), 20), HasSubstr("row 20 is sampled, but there are 20 rows"));
  EXPECT_THAT(forward(step.view({}), -1), HasSubstr("row -1"));
  std::vector<std::int32_t> unknown = tokens;
  unknown[3] = 320;
  StepView view = step.view({});
  view.tokens = unknown;
  EXPECT_THAT(forward(view, 0), HasSubstr("token 320 is outside the vocabulary of 320"));
  PackedStep large;
  Sequence other{.pages = Sequence::page_range(0, 40)};
  const std::vector<std::int32_t> many = some_tokens(513, 9);
  large.add(other, many);
  EXPECT_THAT(forward(large.view({}), 0), HasSubstr("513 rows"));
  EXPECT_THAT(forward({}, 0), HasSubstr("row 0 is sampled, but there are 0 rows"));
  const std::vector<std::int32_t> rows = {0};
  EXPECT_THAT(message_of([&] {
                runner.submit({step.view(rows), {}});
              }),
              HasSubstr("0 samples for 1 logit rows"));
}

TEST(LlamaRunner, RefusesCheckpointsThatDoNotMatchTheirConfig) {
  const ScratchFolder folder;
  write_checkpoint(small_config(), {}, folder.path());
  const std::string config = read_file(folder.path() / "config.json");
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = config;
    changed.replace(changed.find(from), from.size(), to);
    folder.write("config.json", changed);
    return message_of([&] { load_llama(options_for(folder)); });
  };
  EXPECT_THAT(with("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4"),
              HasSubstr("model.safetensors: tensor \"model.layers.3.input_layernorm.weight\": "
                        "missing, expected shape [256]"));
  EXPECT_THAT(with("\"intermediate_size\": 512", "\"intermediate_size\": 256"),
              HasSubstr("tensor \"model.layers.0.mlp.gate_proj.weight\": shape is [512, 256], "
                        "expected [256, 256]"));
  EXPECT_THAT(with("\"vocab_size\": 320", "\"vocab_size\": 321"),
              HasSubstr("tensor \"model.embed_tokens.weight\": shape is [320, 256], expected "
                        "[321, 256]"));
}

TEST(LlamaRunner, PlansWithoutLoading) {
  const ScratchFolder folder;
  write_checkpoint(small_config(), {}, folder.path());
  const MemoryPlan plan = plan_llama(options_for(folder));
  EXPECT_EQ(plan.limits.max_rows, 512);
  EXPECT_GT(plan.weights.mapped_bytes, 1'000'000U);
  ModelOptions options = options_for(folder);
  options.page_tokens = 20;
  EXPECT_THAT(message_of([&] { plan_llama(options); }), HasSubstr("page_tokens is 20"));
}

/// Whether this build and machine have a GPU that Mobius runs on.
bool has_gpu() {
  try {
    make_cuda_backend(0);
    return true;
  } catch (const std::runtime_error&) {
    return false;
  }
}

TEST(LlamaRunner, RefusesAGpuThatIsNotThere) {
  if (has_gpu()) GTEST_SKIP() << "there is one";
  const ScratchFolder folder;
  write_checkpoint(small_config(), {}, folder.path());
  ModelOptions options = options_for(folder);
  options.device = DeviceChoice::cuda;
  EXPECT_THAT(message_of([&] { load_llama(options); }), HasSubstr("CUDA"));
}

TEST(LlamaRunner, FallsBackToTheCpuWhereItMayAndSaysWhy) {
  if (has_gpu()) GTEST_SKIP() << "no need to, with a GPU";
  const ScratchFolder folder;
  write_checkpoint(small_config(), {}, folder.path());
  ModelOptions options = options_for(folder);
  options.device = DeviceChoice::any;
  std::vector<std::string> reasons;
  LoadEvents events;
  events.on_fallback = [&](const std::string& reason) { reasons.push_back(reason); };
  const auto runner = load_llama(options, events);
  EXPECT_THAT(runner->info().device, HasSubstr("cpu"));
  // A build that never had a GPU's backend has nothing to explain.
  ASSERT_EQ(reasons.size(), has_cuda_backend() ? 1U : 0U);
  for (const std::string& reason : reasons) EXPECT_THAT(reason, HasSubstr("computing on the CPU"));
}

TEST(LlamaRunner, ReportsProgressUpToAllWeights) {
  const ScratchFolder folder;
  write_checkpoint(small_config(), {}, folder.path());
  std::vector<std::size_t> steps;
  std::size_t whole = 0;
  LoadEvents events;
  events.on_progress = [&](std::size_t done, std::size_t total) {
    steps.push_back(done);
    whole = total;
  };
  const auto runner = load_llama(options_for(folder), events);
  const WeightMemory& weights = runner->plan().weights;
  EXPECT_EQ(whole, weights.mapped_bytes + weights.copied_bytes);
  ASSERT_FALSE(steps.empty());
  EXPECT_EQ(steps.back(), whole);
  EXPECT_TRUE(std::is_sorted(steps.begin(), steps.end()));
}

}  // namespace
}  // namespace mobius
