#include <cmath>
#include <string>
#include <vector>

#include "kernels/oracle/ops.h"
#include "tests/gpu/cases.h"

namespace mobius::gpu {
namespace {

constexpr std::int32_t kVocab = 50;

/// A backend with room for steps of some rows.
std::unique_ptr<Backend> make_backend(std::int32_t max_rows) {
  auto backend = make_cuda_backend(0);
  const ModelShape model{64, 4, 2, 32, 96, kVocab, DType::bf16};
  const KvShape kv{1, 4, 16, 2, 32, DType::bf16, 0};
  backend->reserve_workspace(model, kv, {max_rows, 4, 64});
  return backend;
}

std::string sizes(std::int64_t rows, std::int64_t cols) {
  return std::to_string(rows) + " x " + std::to_string(cols);
}

void load_cases(Report& report) {
  const auto backend = make_backend(8);
  std::mt19937_64 random(1);
  for (const DType from : {DType::f32, DType::bf16, DType::f16}) {
    for (const DType to : {DType::f32, DType::bf16}) {
      // Two blocks, odd sizes, and more than one staging buffer of 32 MiB.
      const std::int64_t rows[] = {3, from == DType::f32 && to == DType::bf16 ? 9001 : 5};
      const std::int64_t cols = 1001;
      std::vector<std::vector<std::byte>> data;
      std::vector<HostTensor> blocks;
      std::vector<float> want;
      for (const std::int64_t count : rows) {
        std::vector<float> values =
            random_values(static_cast<std::size_t>(count * cols), random, 10.0F);
        values[0] = INFINITY;
        values[1] = -0.0F;
        values[2] = from == DType::f16 ? 65504.0F : 3.4e38F;  // rounds up to infinity in bf16
        data.push_back(packed(from, values));
        for (const float value : values) {
          want.push_back(round_to(to, from == DType::f16
                                          ? static_cast<float>(static_cast<_Float16>(value))
                                          : round_to(from, value)));
        }
        blocks.push_back({nullptr, from, count, cols});
      }
      for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i].data = data[i].data();
      const Weight weight = backend->load_weight(blocks, to);
      std::vector<std::byte> bytes(want.size() * size_of(to));
      backend->download(bytes.data(), {weight.row_blocks[0].data == nullptr
                                           ? nullptr
                                           : const_cast<void*>(weight.row_blocks[0].data),
                                       to, weight.rows, weight.cols});
      const bool equal = unpacked(to, bytes) == want;
      report.add({"load", std::string(name_of(from)) + " to " + std::string(name_of(to)),
                  equal ? "exact" : "values differ", equal});
    }
  }
}

void row_cases(const Options& options, Report& report) {
  const auto backend = make_backend(512);
  std::mt19937_64 random(2);
  const std::vector<std::int64_t> all_rows =
      options.small ? std::vector<std::int64_t>{3} : std::vector<std::int64_t>{1, 3, 300};
  for (const std::int64_t rows : all_rows) {
    for (const std::int64_t cols : {32, 33, 1000, 4096, 4097}) {
      if (options.small && cols > 1000) continue;
      const auto tokens_of = [&](std::int64_t count, std::int32_t limit) {
        std::vector<std::int32_t> tokens;
        for (std::int64_t i = 0; i < count; ++i) {
          tokens.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(limit)));
        }
        return tokens;
      };
      const std::vector<std::int32_t> tokens = tokens_of(rows, kVocab);
      const std::vector<std::int32_t> wanted =
          tokens_of(std::min<std::int64_t>(rows, 4), static_cast<std::int32_t>(rows));

      const std::vector<float> table =
          rounded(DType::bf16, random_values(static_cast<std::size_t>(kVocab * cols), random));
      const std::vector<std::byte> table_bytes = packed(DType::bf16, table);
      const HostTensor table_host{table_bytes.data(), DType::bf16, kVocab, cols};
      const Weight embedding = backend->load_weight(std::span(&table_host, 1), DType::bf16);
      backend->begin_step({tokens, {}, wanted});
      DeviceMatrix embedded(DType::f32, rows, cols);
      backend->embed(embedded.tensor(), embedding);
      DeviceMatrix gathered(DType::f32, static_cast<std::int64_t>(wanted.size()), cols);
      backend->gather_rows(gathered.tensor(), embedded.tensor());
      backend->wait();
      std::vector<float> want;
      for (const std::int32_t token : tokens) {
        want.insert(want.end(), table.begin() + token * cols, table.begin() + (token + 1) * cols);
      }
      bool equal = embedded.values() == want && embedded.margins_intact();
      report.add({"embed", sizes(rows, cols), equal ? "exact" : "values differ", equal});
      std::vector<float> want_gathered;
      for (const std::int32_t row : wanted) {
        want_gathered.insert(want_gathered.end(), want.begin() + row * cols,
                             want.begin() + (row + 1) * cols);
      }
      equal = gathered.values() == want_gathered && gathered.margins_intact();
      report.add({"gather_rows", sizes(rows, cols), equal ? "exact" : "values differ", equal});

      for (const DType dtype : {DType::f32, DType::bf16}) {
        const double allowed = dtype == DType::f32 ? 1e-6 : 3e-3;
        const std::vector<float> in =
            random_values(static_cast<std::size_t>(rows * cols), random, 3.0F);
        const std::vector<float> scale = random_values(static_cast<std::size_t>(cols), random);
        DeviceMatrix in_matrix(DType::f32, rows, cols);
        in_matrix.set(in);
        const HostTensor scale_host{scale.data(), DType::f32, 1, cols};
        const Weight weight = backend->load_weight(std::span(&scale_host, 1), DType::f32);
        DeviceMatrix out(dtype, rows, cols);
        backend->rms_norm(out.tensor(), in_matrix.tensor(), weight, 1e-5F);
        backend->wait();
        double error = relative_error(out.values(), oracle_rms_norm(in, scale, 1e-5F));
        report.add({"rms_norm", sizes(rows, cols) + " to " + std::string(name_of(dtype)),
                    "error " + text(error), error < allowed && out.margins_intact()});

        DeviceMatrix gate_up = DeviceMatrix::random(DType::f32, rows, 2 * cols, random, 4.0F);
        DeviceMatrix gated(dtype, rows, cols);
        backend->silu_mul(gated.tensor(), gate_up.tensor());
        backend->wait();
        error = relative_error(gated.values(), oracle_silu_mul(gate_up.values(), cols));
        report.add({"silu_mul", sizes(rows, cols) + " to " + std::string(name_of(dtype)),
                    "error " + text(error), error < allowed && gated.margins_intact()});
      }
    }
  }
}

/// Arguments that do not fit are refused before anything runs.
void refusal_cases(Report& report) {
  const auto backend = make_backend(8);
  const auto refuses = [&](const char* name, auto&& call) {
    bool refused = false;
    try {
      call();
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    report.add({"refusals", name, refused ? "refused" : "taken", refused});
  };
  const std::vector<std::int32_t> tokens = {1, 2};
  const std::vector<std::int32_t> outside = {1, kVocab};
  const std::vector<std::int32_t> many(9, 1);
  const std::vector<std::int32_t> no_row = {2};
  refuses("a token outside the vocabulary", [&] { backend->begin_step({outside, {}, {}}); });
  refuses("more rows than planned", [&] { backend->begin_step({many, {}, {}}); });
  refuses("a logit row outside the step", [&] { backend->begin_step({tokens, {}, no_row}); });
  const std::vector<PageId> pages = {0, 4};
  SequenceSlice slice;
  slice.num_rows = 2;
  slice.pages = pages;
  slice.first_position = 15;
  refuses("a page outside the pool", [&] {
    backend->begin_step({tokens, std::span(&slice, 1), {}});
  });
  slice.pages = std::span(pages).first(1);
  refuses("too few pages", [&] { backend->begin_step({tokens, std::span(&slice, 1), {}}); });
  slice.first_position = 0;
  slice.policy = AttentionPolicy::moba(24, 2);
  refuses("a block that pages do not divide", [&] {
    backend->begin_step({tokens, std::span(&slice, 1), {}});
  });
  slice.policy = {};
  backend->begin_step({tokens, std::span(&slice, 1), {}});
  DeviceMatrix f32(DType::f32, 2, 64);
  DeviceMatrix bf16(DType::bf16, 2, 64);
  const std::vector<float> ones(64 * 64, 1.0F);
  const HostTensor host{ones.data(), DType::f32, 64, 64};
  const Weight weight = backend->load_weight(std::span(&host, 1), DType::bf16);
  refuses("a product of f32", [&] { backend->matmul(f32.tensor(), f32.tensor(), weight, false); });
  refuses("accumulation in bf16",
          [&] { backend->matmul(bf16.tensor(), bf16.tensor(), weight, true); });
  refuses("a norm of another width",
          [&] { backend->rms_norm(bf16.tensor(), f32.tensor(), weight, 1e-5F); });
  refuses("silu_mul of another width", [&] { backend->silu_mul(bf16.tensor(), f32.tensor()); });
  backend->wait();
}

}  // namespace

void run_ops_cases(const Options& options, Report& report) {
  load_cases(report);
  row_cases(options, report);
  refusal_cases(report);
}

}  // namespace mobius::gpu
