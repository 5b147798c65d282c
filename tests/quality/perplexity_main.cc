// mobius-perplexity: how well a model predicts a text with full attention and with MoBA.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "models/llama_runner.h"
#include "tests/quality/perplexity.h"

namespace mobius {
namespace {

struct Arguments {
  std::string model;
  std::string text;
  std::string json;
  std::vector<std::string> attention = {"full", "moba:512/8"};
  std::int32_t full_attention_last_layers = 0;
  std::int32_t context = 8192;
  std::int32_t windows = 0;
  std::int32_t page_tokens = 128;
  bool fp8_kv = false;
  std::int32_t threads = 0;
};

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.is_open() || file.bad()) throw std::runtime_error(path + ": cannot read");
  return text;
}

/// The text in windows of `context` tokens, each begun as a prompt is. What is left over at the end
/// is not used, unless the whole text is shorter than one window.
std::vector<std::vector<std::int32_t>> cut(const Tokenizer& tokenizer, const std::string& text,
                                           const Arguments& arguments) {
  std::vector<std::int32_t> tokens;
  tokenizer.encode(text, tokens);
  const auto begin = tokenizer.special("<|begin_of_text|>");
  const auto length = static_cast<std::size_t>(arguments.context - (begin ? 1 : 0));
  if (tokens.size() < 2) throw std::runtime_error(arguments.text + ": has fewer than 2 tokens");
  std::vector<std::vector<std::int32_t>> windows;
  const std::size_t most = arguments.windows == 0 ? tokens.size() : arguments.windows;
  for (std::size_t first = 0; windows.size() < most; first += length) {
    const std::size_t count = std::min(length, tokens.size() - first);
    if (count < length && !windows.empty()) break;
    std::vector<std::int32_t>& window = windows.emplace_back();
    if (begin) window.push_back(*begin);
    const auto from = tokens.begin() + static_cast<std::ptrdiff_t>(first);
    window.insert(window.end(), from, from + static_cast<std::ptrdiff_t>(count));
    if (count < length) break;
  }
  return windows;
}

nlohmann::ordered_json to_json(const LossAttention& attention, const LossSummary& summary) {
  nlohmann::ordered_json ranges = nlohmann::ordered_json::array();
  for (const LossRange& range : summary.ranges) {
    ranges.push_back({{"first", range.first}, {"count", range.count}, {"loss", range.mean}});
  }
  return {{"attention", attention.name()}, {"tokens", summary.tokens},
          {"loss", summary.mean},          {"perplexity", summary.perplexity},
          {"relative", summary.relative},  {"relative_error", summary.relative_error},
          {"positions", std::move(ranges)}};
}

void run(const Arguments& arguments) {
  std::vector<LossAttention> attentions;
  for (const std::string& text : arguments.attention) {
    attentions.push_back(parse_loss_attention(text, arguments.full_attention_last_layers));
  }
  const std::string text = read_text(arguments.text);
  const auto tokenizer = Tokenizer::load(arguments.model);
  const auto windows = cut(*tokenizer, text, arguments);
  ModelOptions options;
  options.folder = arguments.model;
  options.fp8_kv = arguments.fp8_kv;
  options.page_tokens = arguments.page_tokens;
  options.max_context = static_cast<std::int32_t>(windows.front().size());
  options.threads = arguments.threads;
  options.step_tokens = 256;
  options.max_sequences = options.step_tokens;  // logits of every row
  const auto runner = load_llama(options);
  std::printf("%s: %zu windows of %zu tokens, %s\n", arguments.model.c_str(), windows.size(),
              windows.front().size(), runner->info().device.c_str());
  std::printf("%-16s %10s %10s %11s   against %s\n", "attention", "tokens", "loss, nats",
              "perplexity", attentions.front().name().c_str());

  std::vector<std::vector<double>> reference;
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  for (const LossAttention& attention : attentions) {
    std::vector<std::vector<double>> losses;
    losses.reserve(windows.size());
    for (const auto& window : windows) {
      losses.push_back(token_losses(*runner, window, attention));
    }
    if (reference.empty()) reference = losses;
    const LossSummary summary = summarize(losses, reference);
    std::printf("%-16s %10lld %10.4f %11.3f   %+.3f %% (standard error %.3f)\n",
                attention.name().c_str(), static_cast<long long>(summary.tokens), summary.mean,
                summary.perplexity, 100 * summary.relative, 100 * summary.relative_error);
    for (const LossRange& range : summary.ranges) {
      std::printf("  from %8d %10d %10.4f\n", range.first, range.count, range.mean);
    }
    std::fflush(stdout);
    results.push_back(to_json(attention, summary));
  }
  if (arguments.json.empty()) return;
  const nlohmann::ordered_json document = {
      {"model", arguments.model},
      {"text", arguments.text},
      {"windows", windows.size()},
      {"window_tokens", windows.front().size()},
      {"fp8_kv", arguments.fp8_kv},
      {"full_attention_last_layers", arguments.full_attention_last_layers},
      {"device", runner->info().device},
      {"results", results}};
  std::ofstream file(arguments.json);
  file << document.dump(2) << '\n';
  if (!file) throw std::runtime_error(arguments.json + ": cannot write");
}

}  // namespace
}  // namespace mobius

int main(int argc, char** argv) {
  CLI::App app("How well a model predicts a text, with full attention and with MoBA.");
  mobius::Arguments arguments;
  app.add_option("--model", arguments.model, "checkpoint folder")->required();
  app.add_option("--text", arguments.text, "file with the text")->required();
  app.add_option(
         "--attention", arguments.attention,
         "full or moba:BLOCK/TOP_K, several with commas; others are compared with the first")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--full-last-layers", arguments.full_attention_last_layers,
                 "last layers that use full attention in any case")
      ->check(CLI::Range(0, 1024));
  app.add_option("--context", arguments.context, "tokens of a window")
      ->check(CLI::Range(3, 1 << 24))
      ->capture_default_str();
  app.add_option("--windows", arguments.windows, "at most this many; 0: the whole text")
      ->check(CLI::Range(0, 1 << 24));
  app.add_option("--page-tokens", arguments.page_tokens, "tokens of a KV page")
      ->check(CLI::Range(16, 4096))
      ->capture_default_str();
  app.add_flag("--fp8-kv", arguments.fp8_kv, "quantise cached keys and values, as kv.dtype = fp8");
  app.add_option("--threads", arguments.threads, "0: every core")->check(CLI::Range(0, 1024));
  app.add_option("--json", arguments.json, "file to write the results to");
  CLI11_PARSE(app, argc, argv);
  try {
    mobius::run(arguments);
  } catch (const std::exception& error) {
    std::cerr << "mobius-perplexity: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
