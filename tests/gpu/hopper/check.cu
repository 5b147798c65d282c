// Checks kernels/cuda/hopper on this machine's GPU against the rules in double precision, and
// prints a table. Exit status 1 if anything fails. Arguments: part of the name of the cases to run.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>

#include "tests/gpu/hopper/reference.cuh"

namespace mobius::hopper {
namespace {

struct Case {
  std::string name;
  Geometry geometry;
  std::vector<Part> parts;
  Data data = Data::normal;
  int samples = 768;
};

struct Verdict {
  bool ok = true;
  std::string note;
  void fail(const std::string& why) {
    ok = false;
    note += (note.empty() ? "" : "; ") + why;
  }
};

/// Results for rows of the scenario, poisoned before. Fails the process on a CUDA error.
std::vector<std::uint16_t> run(const Scenario& s, const Limits& limits, bool decode,
                               bool early_centroids = false) {
  const std::size_t bytes =
      decode ? decode_workspace_bytes(limits) : prefill_workspace_bytes(limits);
  DeviceArray<std::uint8_t> workspace(bytes);
  workspace.fill_bytes(0xFF);
  DeviceArray<std::uint16_t> out(s.out_size());
  out.fill_bytes(0xFF);
  Rows rows = s.call(out.get());
  rows.early_centroids = early_centroids;
  check(decode ? decode_attention(s.kv, rows, limits, workspace.get(), nullptr)
               : prefill_attention(s.kv, rows, limits, workspace.get(), nullptr),
        "attention");
  check(cudaDeviceSynchronize(), "attention kernels");
  return out.host();
}

float from_bf16(std::uint16_t bits) {
  const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

struct Errors {
  double worst = 0.0;  ///< of a row's relative error
  double mean = 0.0;
  int near_ties = 0;  ///< rows off whose choice hung on less than fp32 summation error
  int wrong = 0;
};

Errors compare(const Scenario& s, const Case& c, const std::vector<std::uint16_t>& out) {
  std::mt19937_64 random(99);
  std::vector<std::int64_t> samples;
  for (std::size_t i = 0; i < s.slices.size(); ++i) {
    const Slice& slice = s.slices[i];
    if (slice.num_rows == 0) continue;
    const int share = std::max(8, c.samples / static_cast<int>(s.slices.size()));
    for (int j = 0; j < share; ++j) {
      int row = static_cast<int>(random() % static_cast<unsigned>(slice.num_rows));
      if (j < 2) row = 0;
      if (j >= 2 && j < 4) row = slice.num_rows - 1;
      const std::int64_t vector =
          static_cast<std::int64_t>(slice.first_row + row) * c.geometry.q_heads +
          static_cast<int>(random() % static_cast<unsigned>(c.geometry.q_heads));
      samples.push_back((static_cast<std::int64_t>(i) << 48) | vector);
    }
  }
  const DeviceArray<std::int64_t> device_samples(samples);
  const DeviceArray<double> scratch(samples.size() * static_cast<std::size_t>(s.max_context));
  const DeviceArray<double> expected(samples.size() * static_cast<std::size_t>(c.geometry.dim));
  const DeviceArray<double> gap(samples.size());
  const ReferenceParams p{
      c.geometry,     s.device_slices.get(), s.table.get(), s.table_stride,       s.keys.get(),
      s.values.get(), s.sums.get(),          s.q.get(),     device_samples.get(), scratch.get(),
      s.max_context,  expected.get(),        gap.get()};
  reference_kernel<<<static_cast<unsigned>(samples.size()), kReferenceThreads>>>(p);
  check(cudaDeviceSynchronize(), "reference");
  const std::vector<double> want = expected.host();
  const std::vector<double> gaps = gap.host();
  Errors errors;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const std::int64_t vector = samples[i] & ((std::int64_t{1} << 48) - 1);
    double difference = 0.0;
    double norm = 0.0;
    for (int d = 0; d < c.geometry.dim; ++d) {
      const double w =
          want[i * static_cast<std::size_t>(c.geometry.dim) + static_cast<std::size_t>(d)];
      const double o = from_bf16(out[static_cast<std::size_t>(vector * c.geometry.dim + d)]);
      difference += (w - o) * (w - o);
      norm += w * w;
    }
    const double error = std::sqrt(difference / norm);
    // Rounding the result alone costs up to 2^-9; probabilities in bf16 about as much again.
    if (!(error < 0.012)) {
      // Equal centroids have equal scores in any arithmetic, so a gap of zero is no excuse.
      if (gaps[i] > 0.0 && gaps[i] < 1e-4) {
        ++errors.near_ties;
      } else {
        ++errors.wrong;
      }
      if (errors.wrong > 0 && errors.wrong <= 3) {
        const Slice& slice = s.slices[static_cast<std::size_t>(samples[i] >> 48)];
        std::fprintf(stderr, "  %s: position %lld head %lld error %g gap %g\n", c.name.c_str(),
                     static_cast<long long>(slice.first_position + vector / c.geometry.q_heads -
                                            slice.first_row),
                     static_cast<long long>(vector % c.geometry.q_heads), error, gaps[i]);
      }
    } else {
      errors.worst = std::max(errors.worst, error);
      errors.mean += error / static_cast<double>(samples.size());
    }
  }
  return errors;
}

/// Rows of the whole prompt computed in pieces must have the bits of one call.
bool chunks_agree(const Case& c, const Part& part, const std::vector<std::uint16_t>& whole,
                  const std::vector<int>& cuts) {
  const std::size_t width = static_cast<std::size_t>(c.geometry.q_heads) * c.geometry.dim;
  // The scenario of the whole prompt, of which each piece reads its own rows.
  Scenario s(c.geometry, {part}, c.data, 7);
  std::size_t row = 0;
  for (std::size_t i = 0; i <= cuts.size(); ++i) {
    const int begin = i == 0 ? 0 : cuts[i - 1];
    const int end = i == cuts.size() ? part.rows : cuts[i];
    if (begin == end) continue;
    DeviceArray<Slice> slice(std::vector<Slice>{
        {0, end - begin, part.first_position + begin, 0, part.block, part.top_k}});
    DeviceArray<std::uint16_t> out(static_cast<std::size_t>(end - begin) * width);
    out.fill_bytes(0xFF);
    DeviceArray<std::uint8_t> workspace(prefill_workspace_bytes(s.limits));
    workspace.fill_bytes(0xFF);
    Rows rows = s.call(out.get());
    rows.q = s.q.get() + row * width;
    rows.rows = end - begin;
    rows.slices = slice.get();
    check(prefill_attention(s.kv, rows, s.limits, workspace.get(), nullptr), "chunk");
    check(cudaDeviceSynchronize(), "chunk kernels");
    const std::vector<std::uint16_t> got = out.host();
    if (std::memcmp(got.data(), whole.data() + row * width, got.size() * 2) != 0) return false;
    row += static_cast<std::size_t>(end - begin);
  }
  return true;
}

/// A decode step's rows must have the bits that each has alone; alone it must write no other row.
bool alone_agree(const Scenario& s, const std::vector<std::uint16_t>& together) {
  const std::size_t width = static_cast<std::size_t>(s.geometry.q_heads) * s.geometry.dim;
  Limits limits = s.decode_limits;
  limits.num_slices = 1;
  DeviceArray<std::uint8_t> workspace(decode_workspace_bytes(limits));
  DeviceArray<std::uint16_t> out(s.out_size());
  bool agree = true;
  for (std::size_t i = 0; i < s.slices.size(); ++i) {
    // A slice without a row begins where the next one does: it has nothing of its own to compare.
    if (s.slices[i].num_rows == 0) continue;
    workspace.fill_bytes(0xFF);
    out.fill_bytes(0xFF);
    DeviceArray<Slice> slice(std::vector<Slice>{s.slices[i]});
    Rows rows = s.call(out.get());
    rows.slices = slice.get();
    rows.num_slices = 1;
    check(decode_attention(s.kv, rows, limits, workspace.get(), nullptr), "decode alone");
    check(cudaDeviceSynchronize(), "decode alone");
    std::vector<std::uint16_t> want(s.out_size(), 0xFFFF);
    const auto at =
        static_cast<std::ptrdiff_t>(static_cast<std::size_t>(s.slices[i].first_row) * width);
    std::copy_n(together.begin() + at, width, want.begin() + at);
    if (out.host() != want) {
      std::fprintf(stderr, "  alone: slice %zu differs (position %d, block %d, top-k %d)\n", i,
                   s.slices[i].first_position, s.slices[i].block, s.slices[i].top_k);
      agree = false;
    }
  }
  return agree;
}

Verdict run_case(const Case& c, bool decode) {
  Verdict verdict;
  const Scenario s(c.geometry, c.parts, c.data, 7);
  const Limits& limits = decode ? s.decode_limits : s.limits;
  const std::vector<std::uint16_t> out = run(s, limits, decode);
  const Errors errors = compare(s, c, out);
  if (errors.wrong > 0) verdict.fail(std::to_string(errors.wrong) + " rows wrong");
  if (run(s, limits, decode) != out) verdict.fail("second run differs");
  if (decode && run(s, limits, decode, true) != out) verdict.fail("early centroids differ");
  if (decode && !alone_agree(s, out)) verdict.fail("alone differs");
  if (!decode && s.limits.top_k > 1 && s.limits.blocks > 0) {
    Limits small = s.limits;
    small.partial_bytes = 1 << 20;
    if (run(s, small, false) != out) verdict.fail("small workspace differs");
  }
  if (!decode && c.parts.size() == 1 && c.parts[0].rows > 300) {
    const int rows = c.parts[0].rows;
    if (!chunks_agree(c, c.parts[0], out, {1, 130, rows / 2, rows - 1}))
      verdict.fail("chunks differ");
  }
  char line[200];
  std::snprintf(line, sizeof line, "%-44s %9.2e %9.2e %5d  %s", c.name.c_str(), errors.mean,
                errors.worst, errors.near_ties, verdict.ok ? "ok" : verdict.note.c_str());
  std::puts(line);
  std::fflush(stdout);
  return verdict;
}

std::vector<Case> prefill_cases() {
  const Geometry llama{32, 8, 128, 128};
  const Geometry small{8, 2, 128, 128};
  const Geometry narrow{8, 2, 64, 128};
  const Geometry pages64{4, 2, 128, 64};
  std::vector<Case> cases;
  cases.push_back({"dense 1 row", small, {{0, 1, 0, 0}}});
  cases.push_back({"dense 1000", small, {{0, 1000, 0, 0}}});
  cases.push_back({"dense 2048 d64", narrow, {{0, 2048, 0, 0}}});
  cases.push_back({"dense 4096 llama", llama, {{0, 4096, 0, 0}}});
  cases.push_back({"dense chunk 300 at 3333", small, {{3333, 300, 0, 0}}});
  cases.push_back({"dense pages of 64", pages64, {{100, 1500, 0, 0}}});
  cases.push_back({"dense three sequences",
                   small,
                   {{0, 77, 0, 0}, {1000, 513, 0, 0}, {64, 0, 0, 0}, {4000, 1, 0, 0}}});
  cases.push_back({"dense heavy tails", small, {{0, 1500, 0, 0}}, Data::heavy});
  cases.push_back({"dense MHA", {4, 4, 128, 128}, {{0, 1024, 0, 0}}});
  cases.push_back({"dense GQA 8:1", {8, 1, 128, 128}, {{0, 1024, 0, 0}}});
  cases.push_back({"moba 128/3 all within k", small, {{0, 384, 128, 3}}});
  cases.push_back({"moba 128/3 2048", small, {{0, 2048, 128, 3}}});
  cases.push_back({"moba 128/8 8192", small, {{0, 8192, 128, 8}}});
  cases.push_back({"moba 512/8 16384", small, {{0, 16384, 512, 8}}});
  cases.push_back({"moba 512/3 8192 llama", llama, {{0, 8192, 512, 3}}});
  cases.push_back({"moba 256/4 5000 d64", narrow, {{0, 5000, 256, 4}}});
  cases.push_back({"moba 64/4 3000 pages of 64", pages64, {{0, 3000, 64, 4}}});
  cases.push_back({"moba 192/5 4001 pages of 64", pages64, {{0, 4001, 192, 5}}});
  cases.push_back({"moba 128/12 6000", small, {{0, 6000, 128, 12}}});
  cases.push_back({"moba 64/64 9000 pages of 64", pages64, {{0, 9000, 64, 64}}});
  cases.push_back({"moba 128/1 1000", small, {{0, 1000, 128, 1}}});
  cases.push_back({"moba 128/2 1000", small, {{0, 1000, 128, 2}}});
  cases.push_back({"moba one row after a boundary", small, {{2048, 1, 512, 3}}});
  cases.push_back({"moba one row before a boundary", small, {{2047, 1, 512, 3}}});
  cases.push_back({"moba chunk 700 at 5000", small, {{5000, 700, 512, 3}}});
  cases.push_back({"moba MHA 128/3", {4, 4, 128, 128}, {{0, 2000, 128, 3}}});
  cases.push_back({"moba GQA 8:1 128/3", {8, 1, 128, 128}, {{0, 2000, 128, 3}}});
  cases.push_back({"moba GQA 3:1 128/3", {6, 2, 128, 128}, {{0, 2000, 128, 3}}});
  cases.push_back({"mixed sequences",
                   small,
                   {{0, 500, 128, 3},
                    {3000, 1000, 256, 4},
                    {900, 70, 0, 0},
                    {8000, 1, 128, 2},
                    {100, 3, 512, 8},
                    {1024, 0, 128, 3}}});
  cases.push_back({"one block for all 128/3", small, {{0, 3000, 128, 3}}, Data::one_block});
  cases.push_back({"every query another 128/3", small, {{0, 3000, 128, 3}}, Data::spread});
  cases.push_back({"equal scores 128/4", small, {{0, 3000, 128, 4}}, Data::equal});
  cases.push_back({"heavy tails 128/4", small, {{0, 3000, 128, 4}}, Data::heavy});
  return cases;
}

std::vector<Case> decode_cases() {
  const Geometry llama{32, 8, 128, 128};
  const Geometry narrow{8, 2, 64, 128};
  std::vector<Case> cases;
  cases.push_back({"decode full 1 and 5000", llama, {{0, 1, 0, 0}, {4999, 1, 0, 0}}});
  cases.push_back({"decode 128/8 at 70000", llama, {{70000, 1, 128, 8}}});
  cases.push_back({"decode 4096/12 at 200000", llama, {{200000, 1, 4096, 12}}});
  cases.push_back(
      {"decode 256/4 d64", narrow, {{9000, 1, 256, 4}, {255, 1, 256, 4}, {256, 1, 256, 4}}});
  cases.push_back({"decode 64/64 pages of 64", {4, 2, 128, 64}, {{33000, 1, 64, 64}}});
  cases.push_back({"decode 64/64 of 1600 blocks", {4, 2, 128, 64}, {{102500, 1, 64, 64}}});
  // More rows and KV heads than blocks of threads: these score one chunk of blocks after the other.
  Case chunks{"decode 64/8 of 560 blocks, many rows", {8, 8, 128, 64}, {}};
  for (int i = 0; i < 36; ++i) chunks.parts.push_back({36000 - i * 997, 1, 64, 8});
  cases.push_back(chunks);
  cases.push_back({"decode GQA 16:1 128/3", {16, 1, 128, 128}, {{6000, 1, 128, 3}}});
  cases.push_back({"decode MHA 128/1", {4, 4, 128, 128}, {{600, 1, 128, 1}}});
  Case mixed{"decode 128 mixed lengths", llama, {}};
  for (int i = 0; i < 128; ++i) {
    const int position = (i * 7919) % 9000;
    mixed.parts.push_back(
        {position, i % 11 == 3 ? 0 : 1, i % 3 == 0 ? 0 : 128 << (i % 4), 2 + i % 7});
  }
  mixed.samples = 1024;
  cases.push_back(mixed);
  cases.push_back({"decode equal scores 128/4", llama, {{5000, 1, 128, 4}}, Data::equal});
  cases.push_back({"decode one block 128/4", llama, {{5000, 1, 128, 4}}, Data::one_block});
  cases.push_back({"decode heavy tails 128/4", llama, {{5000, 1, 128, 4}}, Data::heavy});
  return cases;
}

/// Calls that must be refused before anything is enqueued; needs no GPU. Returns what was not.
int check_arguments() {
  std::uint16_t some = 0;  // never read
  Limits good;
  good.rows = 1000;
  good.num_slices = 4;
  good.q_heads = 8;
  good.kv_heads = 2;
  good.head_dim = 128;
  good.top_k = 8;
  good.blocks = 100;
  KvPages kv;
  kv.keys = kv.values = &some;
  kv.key_sums = reinterpret_cast<const float*>(&some);
  kv.num_pages = 100;
  kv.page_tokens = 128;
  kv.kv_heads = 2;
  kv.head_dim = 128;
  Rows rows;
  rows.q = rows.out = &some;
  rows.rows = 10;
  rows.q_heads = 8;
  rows.slices = reinterpret_cast<const Slice*>(&some);
  rows.num_slices = 1;
  rows.page_table = reinterpret_cast<const std::int32_t*>(&some);
  void* const workspace = reinterpret_cast<void*>(std::uintptr_t{256});
  int wrong = 0;
  const auto expect = [&](bool ok, const char* what) {
    if (!ok) std::printf("arguments: %s\n", what);
    wrong += !ok;
  };
  const auto refused = [&](const char* what, const KvPages& k, const Rows& r, const Limits& l,
                           void* w) {
    expect(prefill_attention(k, r, l, w, nullptr) == cudaErrorInvalidValue, what);
    expect(decode_attention(k, r, l, w, nullptr) == cudaErrorInvalidValue, what);
  };
  const auto limits_with = [&](auto change) {
    Limits l = good;
    change(l);
    return l;
  };
  for (const Limits& l :
       {limits_with([](Limits& x) { x.head_dim = 96; }), limits_with([](Limits& x) { x.rows = 0; }),
        limits_with([](Limits& x) { x.top_k = 65; }), limits_with([](Limits& x) { x.top_k = -1; }),
        limits_with([](Limits& x) { x.kv_heads = 3; }),
        limits_with([](Limits& x) { x.num_slices = 0; }),
        limits_with([](Limits& x) { x.blocks = -1; })}) {
    expect(prefill_workspace_bytes(l) == 0, "workspace of bad limits");
    expect(decode_workspace_bytes(l) == 0, "decode workspace of bad limits");
    refused("bad limits", kv, rows, l, workspace);
  }
  refused("no workspace", kv, rows, good, nullptr);
  refused("unaligned workspace", kv, rows, good, reinterpret_cast<void*>(std::uintptr_t{128}));
  const auto kv_with = [&](auto change) {
    KvPages k = kv;
    change(k);
    return k;
  };
  for (const KvPages& k : {kv_with([](KvPages& x) { x.keys = nullptr; }),
                           kv_with([](KvPages& x) { x.values = nullptr; }),
                           kv_with([](KvPages& x) { x.key_sums = nullptr; }),
                           kv_with([](KvPages& x) { x.page_tokens = 96; }),
                           kv_with([](KvPages& x) { x.head_dim = 64; }),
                           kv_with([](KvPages& x) { x.kv_heads = 4; })}) {
    refused("bad pages", k, rows, good, workspace);
  }
  const auto rows_with = [&](auto change) {
    Rows r = rows;
    change(r);
    return r;
  };
  for (const Rows& r :
       {rows_with([](Rows& x) { x.q = nullptr; }), rows_with([](Rows& x) { x.out = nullptr; }),
        rows_with([](Rows& x) { x.slices = nullptr; }),
        rows_with([](Rows& x) { x.page_table = nullptr; }),
        rows_with([](Rows& x) { x.rows = 1001; }), rows_with([](Rows& x) { x.num_slices = 5; }),
        rows_with([](Rows& x) { x.q_heads = 16; })}) {
    refused("bad rows", kv, r, good, workspace);
  }
  // What holds the largest call must hold any smaller one.
  std::mt19937_64 random(5);
  for (int i = 0; i < 2000; ++i) {
    Limits small = good;
    small.rows = 1 + static_cast<int>(random() % 20000);
    small.top_k = static_cast<int>(random() % 60);
    small.blocks = static_cast<int>(random() % 3000);
    small.partial_bytes = std::size_t{1} << (10 + random() % 24);
    Limits large = small;
    large.rows += static_cast<int>(random() % 3000);
    large.top_k += static_cast<int>(random() % 4);
    large.blocks += static_cast<int>(random() % 100);
    large.num_slices += static_cast<int>(random() % 3);
    expect(prefill_workspace_bytes(small) <= prefill_workspace_bytes(large),
           "smaller limits need more memory");
  }
  std::printf("arguments: %d wrong\n", wrong);
  return wrong;
}

int run_all(const std::string& filter) {
  int failed = check_arguments() != 0;
  if (filter == "arguments") return failed;
  std::printf("%-44s %9s %9s %5s\n", "case", "mean err", "worst", "ties");
  for (const Case& c : prefill_cases()) {
    if (c.name.find(filter) != std::string::npos) failed += !run_case(c, false).ok;
  }
  for (const Case& c : decode_cases()) {
    if (c.name.find(filter) != std::string::npos) failed += !run_case(c, true).ok;
  }
  std::printf("%d failed\n", failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace mobius::hopper

int main(int argc, char** argv) {
  return mobius::hopper::run_all(argc > 1 ? argv[1] : "");
}
