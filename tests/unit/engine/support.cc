#include "tests/unit/engine/support.h"

#include <gtest/gtest.h>

#include <string>
#include <variant>

#include "engine/validate.h"
#include "tests/scratch_folder.h"

namespace mobius {
namespace {

std::string base64_of(unsigned char byte) {
  constexpr const char* kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  return {kDigits[byte >> 2], kDigits[(byte & 3) << 4], '=', '='};
}

}  // namespace

std::shared_ptr<const Tokenizer> byte_tokenizer() {
  static const std::shared_ptr<const Tokenizer> tokenizer = [] {
    std::string ranks;
    for (int byte = 0; byte < 256; ++byte) {
      ranks += base64_of(static_cast<unsigned char>(byte)) + ' ' + std::to_string(byte) + '\n';
    }
    const ScratchFolder folder;
    folder.write("tokenizer.model", ranks);
    return Tokenizer::load(folder.path());
  }();
  return tokenizer;
}

std::vector<std::int32_t> make_prompt(std::size_t length, std::uint64_t salt) {
  std::vector<std::int32_t> prompt(length);
  std::uint64_t state = salt * 0x9e3779b97f4a7c15ULL + 1;
  for (std::int32_t& token : prompt) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    token = static_cast<std::int32_t>(state >> 56);
  }
  return prompt;
}

GenerationRequest make_request(std::size_t prompt_tokens, std::int32_t max_tokens,
                               std::uint64_t seed) {
  GenerationRequest request;
  request.prompt = make_prompt(prompt_tokens, seed);
  request.max_tokens = max_tokens;
  request.sampling.seed = seed;
  request.attention.prefill = AttentionPolicy::moba(8, 2);
  request.attention.decode = AttentionPolicy::full();
  request.attention.full_attention_last_layers = 1;
  return request;
}

std::vector<std::int32_t> bytes(const std::string& text) {
  std::vector<std::int32_t> tokens;
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

std::vector<std::int32_t> Outcome::tokens() const {
  std::vector<std::int32_t> out;
  for (const TokenDelta& delta : deltas) out.push_back(delta.token.token);
  return out;
}

std::string Outcome::text() const {
  std::string out;
  for (const TokenDelta& delta : deltas) out += delta.text;
  for (const Finish& finish : finishes) out += finish.text;
  return out;
}

void Outcome::take(Stream& stream) {
  for (Event& event : stream.take()) {
    if (ended()) in_order = false;
    if (const auto* seen = std::get_if<PrefillProgress>(&event)) {
      if (!deltas.empty()) in_order = false;
      progress.push_back(*seen);
    } else if (auto* scored = std::get_if<PromptTokens>(&event)) {
      if (!deltas.empty() || scored->first != static_cast<std::int32_t>(prompt.size())) {
        in_order = false;
      }
      std::ranges::move(scored->tokens, std::back_inserter(prompt));
    } else if (auto* delta = std::get_if<TokenDelta>(&event)) {
      deltas.push_back(std::move(*delta));
    } else {
      finishes.push_back(std::get<Finish>(std::move(event)));
    }
  }
}

Bench::Bench(const EngineOptions& options, const RunnerInfo& model)
    : runner(model), loop(options, runner, *tokenizer, [this] { return now; }) {}

std::shared_ptr<Stream> Bench::add(GenerationRequest request) {
  const Status status = validate(request, runner.info(), loop.max_context());
  EXPECT_TRUE(status.ok()) << status.message();
  auto stream = std::make_shared<Stream>();
  loop.add({std::move(request), stream, now});
  return stream;
}

void Bench::step() {
  loop.step();
  for (StepLoop::Ended& ended : loop.take_ended()) ended.stream->push(std::move(ended.finish));
  EXPECT_EQ(loop.scheduler().check_invariants(), "");
  if (loop.idle()) {
    EXPECT_EQ(loop.stats().pages_used, 0);
  }
}

void Bench::run(int limit) {
  while (!loop.idle()) {
    ASSERT_GE(--limit, 0) << "no end in sight";
    step();
  }
}

Outcome Bench::finish(Stream& stream) {
  Outcome outcome;
  for (int i = 0; i < 100000 && !outcome.ended() && !loop.idle(); ++i) {
    step();
    outcome.take(stream);
  }
  EXPECT_TRUE(outcome.ended());
  EXPECT_TRUE(outcome.in_order);
  return outcome;
}

EngineOptions engine_options(std::int32_t max_running, std::int32_t step_tokens,
                             std::vector<std::int32_t> end_tokens) {
  EngineOptions out;
  out.max_running = max_running;
  out.step_tokens = step_tokens;
  out.end_tokens = std::move(end_tokens);
  return out;
}

}  // namespace mobius
