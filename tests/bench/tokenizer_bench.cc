// Tokenizer speed on one core. Uses Llama 3.1's vocabulary and a book if MOBIUS_TEST_DATA has them;
// without the vocabulary there is nothing to measure.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "engine/tokenizer/detokenizer.h"
#include "engine/tokenizer/tokenizer.h"

namespace mobius {
namespace {

constexpr std::size_t kTextSize = 4'000'000;

std::filesystem::path test_data() {
  const char* folder = std::getenv("MOBIUS_TEST_DATA");
  return folder != nullptr ? std::filesystem::path(folder)
                           : std::filesystem::path(MOBIUS_SOURCE_DIR) / ".." / "shared" / "data";
}

const Tokenizer* tokenizer(benchmark::State& state) {
  static const std::shared_ptr<const Tokenizer> loaded = []() -> std::shared_ptr<const Tokenizer> {
    try {
      return Tokenizer::load(test_data() / "llama3.1");
    } catch (const std::exception&) {
      return nullptr;
    }
  }();
  if (loaded == nullptr) state.SkipWithError("no Llama 3.1 tokenizer; set MOBIUS_TEST_DATA");
  return loaded.get();
}

std::string repeated(std::string part) {
  std::string out;
  out.reserve(kTextSize + part.size());
  while (out.size() < kTextSize) out += part;
  return out;
}

std::string english() {
  std::ifstream file(test_data() / "text/war-and-peace.txt", std::ios::binary);
  std::string book{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (book.empty()) book = "It was a dark and stormy night; the rain fell in torrents.\n";
  return repeated(book).substr(0, kTextSize);
}

void encode(benchmark::State& state, const std::string& text) {
  const Tokenizer* const model = tokenizer(state);
  if (model == nullptr) return;
  std::vector<std::int32_t> ids;
  for (auto _ : state) {
    ids.clear();
    model->encode(text, ids);
    benchmark::DoNotOptimize(ids.data());
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * text.size()));
  state.counters["tokens"] = static_cast<double>(ids.size());
}

void Encode_English(benchmark::State& state) {
  encode(state, english());
}
void Encode_Code(benchmark::State& state) {
  encode(state, repeated("  for (std::size_t i = 0; i < rows; ++i) {\n    out[i] += a_ij * x[i];"
                         "  // row 1024\n  }\n\n"));
}
void Encode_Mixed(benchmark::State& state) {
  encode(state, repeated("東京タワーは333メートルです。 Съешь же ещё этих булок! ऋषियों को "
                         "🙂👩‍💻 naïve café\n"));
}
void Encode_OneLetter(benchmark::State& state) {
  encode(state, std::string(kTextSize, 'a'));
}
void Encode_Spaces(benchmark::State& state) {
  encode(state, std::string(kTextSize, ' '));
}
void Encode_InvalidUtf8(benchmark::State& state) {
  encode(state, repeated("a\xFF\xE2\x82"));
}

void Detokenize_English(benchmark::State& state) {
  const Tokenizer* const model = tokenizer(state);
  if (model == nullptr) return;
  std::vector<std::int32_t> ids;
  model->encode(english(), ids);
  for (auto _ : state) {
    Detokenizer detokenizer(*model);
    for (const std::int32_t id : ids) benchmark::DoNotOptimize(detokenizer.push(id));
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * ids.size()));
}

BENCHMARK(Encode_English)->Unit(benchmark::kMillisecond);
BENCHMARK(Encode_Code)->Unit(benchmark::kMillisecond);
BENCHMARK(Encode_Mixed)->Unit(benchmark::kMillisecond);
BENCHMARK(Encode_OneLetter)->Unit(benchmark::kMillisecond);
BENCHMARK(Encode_Spaces)->Unit(benchmark::kMillisecond);
BENCHMARK(Encode_InvalidUtf8)->Unit(benchmark::kMillisecond);
BENCHMARK(Detokenize_English)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace mobius
