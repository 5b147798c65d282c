#include <cmath>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "tests/gpu/cases.h"

namespace mobius::gpu {
namespace {

constexpr std::int32_t kHidden = 128;
constexpr std::int32_t kHeads = 4;
constexpr std::int32_t kKvHeads = 2;
constexpr std::int32_t kHeadDim = 64;
constexpr std::int32_t kInner = 192;
constexpr std::int32_t kVocab = 300;
constexpr std::int32_t kPage = 16;
constexpr std::int32_t kLayers = 2;
constexpr std::int32_t kRows = 64;
constexpr std::int32_t kContext = 256;

/// How the weights of products are loaded: fp8, or bf16 with the values that fp8 leaves.
enum class Matrices { bf16, fp8, rounded_to_fp8 };

/// A model of two layers in the operations of a backend.
class TinyModel {
 public:
  explicit TinyModel(Matrices matrices = Matrices::bf16, bool fp8_kv = false)
      : backend_(make_cuda_backend(0)) {
    std::mt19937_64 random(23);
    const auto load = [&](std::int64_t rows, std::int64_t cols, DType dtype) {
      const std::vector<float> values =
          random_values(static_cast<std::size_t>(rows * cols), random, rows > 1 ? 0.1F : 1.0F);
      const HostTensor host{values.data(), DType::f32, rows, cols};
      return backend_->load_weight(std::span(&host, 1), dtype);
    };
    const auto load_matrix = [&](std::int64_t rows, std::int64_t cols) {
      std::vector<float> values =
          random_values(static_cast<std::size_t>(rows * cols), random, 0.1F);
      if (matrices == Matrices::rounded_to_fp8) values = fp8_rounded(values, cols);
      const HostTensor host{values.data(), DType::f32, rows, cols};
      return backend_->load_weight(std::span(&host, 1),
                                   matrices == Matrices::fp8 ? DType::e4m3 : DType::bf16);
    };
    table_ = load(kVocab, kHidden, DType::bf16);
    norm_ = load(1, kHidden, DType::f32);
    rotation_ = load(1, kHeadDim / 2, DType::f32);
    qkv_ = load_matrix((kHeads + 2 * kKvHeads) * kHeadDim, kHidden);
    output_ = load_matrix(kHidden, kHeads * kHeadDim);
    gate_up_ = load_matrix(2 * kInner, kHidden);
    down_ = load_matrix(kHidden, kInner);
    const KvShape kv{kLayers, 64, kPage, kKvHeads, kHeadDim, DType::bf16, 2 * kPage, fp8_kv};
    backend_->reserve_workspace({kHidden, kHeads, kKvHeads, kHeadDim, kInner, kVocab, DType::bf16,
                                 matrices == Matrices::fp8},
                                kv, {kRows, 8, kContext});
    pool_ = backend_->create_kv_pool(kv);
    other_pool_ = backend_->create_kv_pool(kv);
  }

  Backend& backend() { return *backend_; }

  /// Enqueues all rows' way to logits in `logits_`.
  Tensor forward(const StepView& step, bool other_pool) {
    const auto rows = static_cast<std::int64_t>(step.tokens.size());
    const auto wanted = static_cast<std::int64_t>(step.logit_rows.size());
    KvPool& pool = other_pool ? *other_pool_ : *pool_;
    const Tensor x = x_.tensor().head(rows);
    const Tensor h = h_.tensor().head(rows);
    const Tensor q = q_.tensor().head(rows);
    const Tensor attended = attended_.tensor().head(rows);
    backend_->begin_step(step);
    backend_->embed(x, table_);
    for (std::int32_t layer = 0; layer < kLayers; ++layer) {
      backend_->rms_norm(h, x, norm_, 1e-5F);
      backend_->matmul(projected_.tensor().head(rows), h, qkv_, false);
      backend_->rope_append(q, projected_.tensor().head(rows), pool, layer, rotation_);
      backend_->attention(attended, q, pool, layer);
      backend_->matmul(x, attended, output_, true);
      backend_->rms_norm(h, x, norm_, 1e-5F);
      backend_->matmul(inner_.tensor().head(rows), h, gate_up_, false);
      backend_->silu_mul(act_.tensor().head(rows), inner_.tensor().head(rows));
      backend_->matmul(x, act_.tensor().head(rows), down_, true);
    }
    backend_->gather_rows(sampled_.tensor().head(wanted), x);
    backend_->rms_norm(h_.tensor().head(wanted), sampled_.tensor().head(wanted), norm_, 1e-5F);
    const Tensor logits = logits_.tensor().head(wanted);
    backend_->matmul(logits, h_.tensor().head(wanted), table_, false);
    return logits;
  }

  /// The step's logits.
  std::vector<float> run(const StepView& step, bool other_pool = false) {
    const Tensor logits = forward(step, other_pool);
    std::vector<float> host(static_cast<std::size_t>(logits.rows * kVocab));
    backend_->download(host.data(), logits);
    backend_->wait();
    return host;
  }

 private:
  std::unique_ptr<Backend> backend_;
  Weight table_, norm_, rotation_, qkv_, output_, gate_up_, down_;
  std::unique_ptr<KvPool> pool_;
  std::unique_ptr<KvPool> other_pool_;
  DeviceMatrix x_{DType::f32, kRows, kHidden};
  DeviceMatrix h_{DType::bf16, kRows, kHidden};
  DeviceMatrix projected_{DType::f32, kRows, (kHeads + 2 * kKvHeads) * kHeadDim};
  DeviceMatrix q_{DType::bf16, kRows, kHeads* kHeadDim};
  DeviceMatrix attended_{DType::bf16, kRows, kHeads* kHeadDim};
  DeviceMatrix inner_{DType::f32, kRows, 2 * kInner};
  DeviceMatrix act_{DType::bf16, kRows, kInner};
  DeviceMatrix sampled_{DType::f32, kRows, kHidden};
  DeviceMatrix logits_{DType::f32, 8, kVocab};
};

struct Stream {
  std::vector<std::int32_t> tokens;
  std::vector<PageId> pages;
  AttentionPolicy policy;
  std::int32_t full_last = 0;
  std::int32_t done = 0;
};

/// The next `counts[i]` tokens of each stream, wanting the last one's logits.
struct Step {
  std::vector<std::int32_t> tokens;
  std::vector<SequenceSlice> slices;
  std::vector<std::int32_t> last;

  StepView view() const { return {tokens, slices, last}; }

  void add(Stream& stream, std::int32_t count) {
    SequenceSlice slice;
    slice.first_row = static_cast<std::int32_t>(tokens.size());
    slice.num_rows = count;
    slice.first_position = stream.done;
    slice.pages = stream.pages;
    slice.policy = stream.policy;
    slice.full_attention_last_layers = stream.full_last;
    slices.push_back(slice);
    for (std::int32_t i = 0; i < count; ++i) {
      tokens.push_back(stream.tokens[static_cast<std::size_t>(stream.done + i)]);
    }
    last.push_back(static_cast<std::int32_t>(tokens.size()) - 1);
    stream.done += count;
  }
};

std::vector<Stream> make_streams() {
  std::mt19937_64 random(31);
  std::vector<Stream> streams(3);
  PageId next = 0;
  for (Stream& stream : streams) {
    for (std::int32_t i = 0; i < kContext; ++i) {
      stream.tokens.push_back(static_cast<std::int32_t>(random() % kVocab));
    }
    for (std::int32_t i = 0; i < kContext / kPage; ++i) stream.pages.push_back(next++);
  }
  streams[1].policy = AttentionPolicy::moba(2 * kPage, 2);
  streams[1].full_last = 1;
  streams[2].policy = AttentionPolicy::moba(kPage, 3);
  return streams;
}

/// A stream decoded alone (recorded, then replayed) has the bits of one that shares its steps with
/// others, prefilling ones among them (which run operation by operation).
void replay_case(const Options& options, Matrices matrices, bool fp8_kv, Report& report) {
  TinyModel model(matrices, fp8_kv);
  std::vector<Stream> streams = make_streams();
  std::vector<Stream> alone = make_streams();
  const std::int32_t steps = options.small ? 6 : 60;
  const auto logits_of = [](const std::vector<float>& all, std::size_t row) {
    return std::vector<float>(all.begin() + static_cast<std::ptrdiff_t>(row * kVocab),
                              all.begin() + static_cast<std::ptrdiff_t>((row + 1) * kVocab));
  };
  // Prompts of 40, 50 and, in pieces between the others' decode steps, 30 tokens.
  std::vector<std::vector<float>> want(2);
  for (std::size_t i = 0; i < 2; ++i) {
    Step prompt;
    prompt.add(alone[i], 40);
    model.run(prompt.view());
    for (std::int32_t s = 0; s < steps; ++s) {
      Step one;
      one.add(alone[i], 1);
      const std::vector<float> logits = model.run(one.view());
      want[i].insert(want[i].end(), logits.begin(), logits.end());
    }
  }
  std::vector<std::vector<float>> got(2);
  Step prompts;
  prompts.add(streams[0], 20);
  prompts.add(streams[1], 40);
  model.run(prompts.view(), true);
  Step rest;
  rest.add(streams[0], 20);
  model.run(rest.view(), true);
  bool finite = true;
  for (std::int32_t s = 0; s < steps; ++s) {
    Step both;
    both.add(streams[1], 1);
    if (s % 4 == 1 && streams[2].done < 30) both.add(streams[2], 5);
    both.add(streams[0], 1);
    const std::vector<float> logits = model.run(both.view(), true);
    for (const float value : logits) finite = finite && std::isfinite(value);
    const std::vector<float> first = logits_of(logits, 0);
    const std::vector<float> second = logits_of(logits, both.last.size() - 1);
    got[1].insert(got[1].end(), first.begin(), first.end());
    got[0].insert(got[0].end(), second.begin(), second.end());
  }
  const bool equal = got == want && finite;
  report.add({"backend",
              "decode alone and beside others, replayed and not, " + std::to_string(steps) +
                  " steps" + (matrices == Matrices::fp8 ? ", fp8" : "") +
                  (fp8_kv ? ", fp8 KV" : ""),
              equal ? "bit-equal" : "bits differ", equal});
}

/// An environment variable with another value, until the end of its scope.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    setenv(name, value, 1);
  }
  ~Environment() {
    if (before_) {
      setenv(name_, before_->c_str(), 1);
    } else {
      unsetenv(name_);
    }
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

/// The logits of three streams' prompts and of steps after them.
std::vector<float> decoded(std::int32_t steps, const char* products, const char* overlap,
                           Matrices matrices = Matrices::bf16, bool fp8_kv = false) {
  const Environment first("MOBIUS_CUDA_PRODUCTS", products);
  const Environment second("MOBIUS_CUDA_OVERLAP", overlap);
  TinyModel model(matrices, fp8_kv);
  std::vector<Stream> streams = make_streams();
  std::vector<float> all;
  for (std::int32_t s = 0; s <= steps; ++s) {
    Step step;
    for (Stream& stream : streams) step.add(stream, s == 0 ? 20 - 5 * stream.full_last : 1);
    const std::vector<float> logits = model.run(step.view());
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

/// What chooses among kernels and launches changes no bit; other words are refused.
void switches_case(const Options& options, Report& report) {
  const std::int32_t steps = options.small ? 6 : 60;
  const std::vector<float> want = decoded(steps, "library", "off");
  const auto compare = [&](const char* products, const char* overlap) {
    const bool equal = decoded(steps, products, overlap) == want;
    report.add({"backend",
                "products: " + std::string(products) + ", overlap: " + overlap + ", " +
                    std::to_string(steps) + " steps",
                equal ? "bit-equal" : "bits differ", equal});
  };
  compare("library", "on");
  compare("own", "off");
  compare("own", "on");
  for (const bool products : {true, false}) {
    bool refused = false;
    try {
      decoded(1, products ? "mine" : "own", products ? "on" : "perhaps");
    } catch (const std::runtime_error&) {
      refused = true;
    }
    report.add({"refusals", products ? "MOBIUS_CUDA_PRODUCTS=mine" : "MOBIUS_CUDA_OVERLAP=perhaps",
                refused ? "refused" : "taken", refused});
  }
}

/// fp8 weights give the bits of bf16 weights with the values that fp8 leaves, in prefill and
/// decode; the difference to the original ones is what quantisation costs a tiny model.
void fp8_case(const Options& options, Report& report) {
  const std::int32_t steps = options.small ? 6 : 60;
  const std::vector<float> got = decoded(steps, "own", "on", Matrices::fp8);
  const bool equal = got == decoded(steps, "own", "on", Matrices::rounded_to_fp8);
  const std::vector<float> original = decoded(steps, "own", "on");
  const double error = relative_error(got, std::vector<double>(original.begin(), original.end()));
  report.add({"backend", "fp8 weights, " + std::to_string(steps) + " steps",
              std::string(equal ? "bits of bf16 weights" : "bits differ from bf16 weights") +
                  ", logits " + text(error) + " from the original ones",
              equal && error > 0 && error < 0.5});
}

/// What a quantised cache costs a tiny model.
void fp8_kv_case(const Options& options, Report& report) {
  const std::int32_t steps = options.small ? 6 : 60;
  const std::vector<float> got = decoded(steps, "own", "on", Matrices::bf16, true);
  const std::vector<float> original = decoded(steps, "own", "on");
  const double error = relative_error(got, std::vector<double>(original.begin(), original.end()));
  report.add({"backend", "fp8 KV, " + std::to_string(steps) + " steps",
              "logits " + text(error) + " from those of a bf16 cache", error > 0 && error < 0.2});
}

/// Tokens come back for every row, by its own parameters.
void sample_case(Report& report) {
  TinyModel model;
  std::vector<Stream> streams = make_streams();
  Step step;
  for (Stream& stream : streams) step.add(stream, 1);
  bool equal = true;
  for (int round = 0; round < 3; ++round) {
    const Tensor logits = model.forward(step.view(), false);
    std::vector<SamplingParams> params(3);
    for (SamplingParams& p : params) p.temperature = 0;
    params[1].logit_bias = {{kVocab - 1, 1000.0F}};
    params[2].top_logprobs = 3;
    std::vector<SampleRow> rows(3);
    for (std::size_t i = 0; i < 3; ++i) rows[i].params = &params[i];
    std::vector<SampledToken> out(3);
    model.backend().sample(out, logits, rows);
    model.backend().wait();
    const std::vector<float> values = model.run(step.view());
    const auto most_likely = [&](std::size_t row) {
      std::int32_t best = 0;
      for (std::int32_t t = 1; t < kVocab; ++t) {
        const float* own = values.data() + row * kVocab;
        if (own[t] > own[best]) best = t;
      }
      return best;
    };
    equal = equal && out[0].token == most_likely(0) && out[1].token == kVocab - 1 &&
            out[2].token == most_likely(2) && out[2].top.size() == 3 &&
            out[2].top[0].token == out[2].token && out[2].logprob < 0 && out[0].top.empty();
  }
  report.add({"backend", "sampled rows of a replayed step", equal ? "as asked" : "wrong", equal});
}

/// Wrong calls of a step are refused before anything runs.
void refusal_cases(Report& report) {
  TinyModel model;
  std::vector<Stream> streams = make_streams();
  Step step;
  step.add(streams[0], 1);
  const Tensor logits = model.forward(step.view(), false);
  const auto refuses = [&](const char* name, auto&& call) {
    bool refused = false;
    try {
      call();
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    report.add({"refusals", name, refused ? "refused" : "taken", refused});
  };
  SamplingParams params;
  std::vector<SampleRow> rows(1);
  std::vector<SampledToken> out(1);
  refuses("a row without parameters", [&] { model.backend().sample(out, logits, rows); });
  rows[0].params = &params;
  const std::vector<std::uint32_t> nothing((kVocab + 31) / 32, 0U);
  rows[0].allowed = nothing;
  refuses("a mask that allows nothing", [&] { model.backend().sample(out, logits, rows); });
  rows[0].allowed = std::span(nothing).first(1);
  refuses("a mask that is too short", [&] { model.backend().sample(out, logits, rows); });
  rows[0].allowed = {};
  std::vector<SampledToken> two(2);
  refuses("results for other rows", [&] { model.backend().sample(two, logits, rows); });
  model.backend().wait();
}

}  // namespace

void run_backend_cases(const Options& options, Report& report) {
  replay_case(options, Matrices::bf16, false, report);
  replay_case(options, Matrices::fp8, false, report);
  replay_case(options, Matrices::fp8, true, report);
  fp8_case(options, report);
  fp8_kv_case(options, report);
  switches_case(options, report);
  sample_case(report);
  refusal_cases(report);
}

}  // namespace mobius::gpu
