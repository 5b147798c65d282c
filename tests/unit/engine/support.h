#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/step_loop.h"
#include "tests/unit/engine/simulated_runner.h"

namespace mobius {

/// Token i is the byte i; above them are Llama 3.1's special tokens, of which this is one.
std::shared_ptr<const Tokenizer> byte_tokenizer();
inline constexpr std::int32_t kEndOfTurn = 256 + 9;

/// `length` tokens that depend on `salt`.
std::vector<std::int32_t> make_prompt(std::size_t length, std::uint64_t salt = 0);
GenerationRequest make_request(std::size_t prompt_tokens, std::int32_t max_tokens,
                               std::uint64_t seed = 0);
std::vector<std::int32_t> bytes(const std::string& text);

/// All that a request's stream carried.
struct Outcome {
  std::vector<PrefillProgress> progress;
  std::vector<SampledToken> prompt;  // scored tokens
  std::vector<TokenDelta> deltas;
  std::vector<Finish> finishes;  // exactly one, at the end of the stream, or it is not over
  bool in_order = true;          // progress, then tokens, then the end

  bool ended() const { return !finishes.empty(); }
  const Finish& finish() const { return finishes.at(0); }
  std::vector<std::int32_t> tokens() const;
  /// Text of all events together.
  std::string text() const;
  void take(Stream& stream);
};

/// A StepLoop with its runner and a clock that moves when told to. Checks after every step that
/// nothing leaked.
class Bench {
 public:
  explicit Bench(const EngineOptions& options = {}, const RunnerInfo& model = simulated_model());

  /// As Engine::submit does it. Fails the test if the request is not valid.
  std::shared_ptr<Stream> add(GenerationRequest request);
  void step();
  /// Steps until everything has ended; fails the test after `limit` steps.
  void run(int limit = 100000);
  /// Steps until the stream has ended.
  Outcome finish(Stream& stream);

  SimulatedRunner runner;
  std::shared_ptr<const Tokenizer> tokenizer = byte_tokenizer();
  TimePoint now{std::chrono::seconds(1)};
  StepLoop loop;
};

/// With limits as small as tests like them.
EngineOptions engine_options(std::int32_t max_running, std::int32_t step_tokens,
                             std::vector<std::int32_t> end_tokens = {});

}  // namespace mobius
