// Logits of a checkpoint for given tokens, for comparison with another implementation.
//
//   llama_logits --model FOLDER --tokens FILE --out FILE [--backend cpu|cuda] [--dtype bf16|f32]
//                [--quantization none|fp8] [--chunk ROWS]
//
// FILE of tokens: ids in text, separated by white space. Writes the logits of every position,
// [tokens, vocabulary] f32, little endian. The prompt is pushed through in chunks.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "models/llama_runner.h"

namespace mobius {
namespace {

int run(int argc, char** argv) {
  ModelOptions options;
  std::string tokens_file;
  std::string out_file;
  std::int32_t chunk = 512;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 >= argc) throw std::runtime_error(name + " needs a value");
    const std::string value = argv[i + 1];
    if (name == "--model") {
      options.folder = value;
    } else if (name == "--tokens") {
      tokens_file = value;
    } else if (name == "--out") {
      out_file = value;
    } else if (name == "--backend" && (value == "cpu" || value == "cuda")) {
      options.device = value == "cuda" ? DeviceChoice::cuda : DeviceChoice::cpu;
    } else if (name == "--dtype" && (value == "bf16" || value == "f32")) {
      options.compute_dtype = value == "bf16" ? DType::bf16 : DType::f32;
    } else if (name == "--quantization" && (value == "none" || value == "fp8")) {
      options.fp8_weights = value == "fp8";
    } else if (name == "--chunk") {
      chunk = std::stoi(value);
    } else {
      throw std::runtime_error("unknown option " + name + " " + value);
    }
  }
  std::vector<std::int32_t> tokens;
  std::ifstream in(tokens_file);
  for (std::int32_t token = 0; in >> token;) tokens.push_back(token);
  if (tokens.empty()) throw std::runtime_error("no tokens in " + tokens_file);

  const auto count = static_cast<std::int32_t>(tokens.size());
  chunk = std::clamp(chunk, 1, count);
  options.step_tokens = chunk;
  options.max_sequences = chunk;  // as many rows of logits as there are rows
  options.max_context = count;
  const auto runner = load_llama(options);
  std::vector<PageId> pages(static_cast<std::size_t>(runner->plan().kv.num_pages));
  std::iota(pages.begin(), pages.end(), 0);
  const auto vocab = static_cast<std::size_t>(runner->config().vocab_size);
  std::ofstream out(out_file, std::ios::binary);
  for (std::int32_t first = 0; first < count; first += chunk) {
    SequenceSlice slice;
    slice.num_rows = std::min(chunk, count - first);
    slice.first_position = first;
    slice.pages = pages;
    std::vector<std::int32_t> rows(static_cast<std::size_t>(slice.num_rows));
    std::iota(rows.begin(), rows.end(), 0);
    std::vector<float> logits(rows.size() * vocab);
    runner->forward({std::span(tokens).subspan(static_cast<std::size_t>(first), rows.size()),
                     std::span(&slice, 1), rows},
                    logits);
    out.write(reinterpret_cast<const char*>(logits.data()),
              static_cast<std::streamsize>(logits.size() * sizeof(float)));
  }
  if (!out) throw std::runtime_error("cannot write " + out_file);
  std::printf("%s\n", runner->info().device.c_str());
  return 0;
}

}  // namespace
}  // namespace mobius

int main(int argc, char** argv) {
  try {
    return mobius::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "llama_logits: %s\n", error.what());
    return 1;
  }
}
