#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "engine/grammar/grammar.h"
#include "engine/step_loop.h"
#include "engine/validate.h"
#include "tests/unit/engine/support.h"

namespace mobius {
namespace {

std::shared_ptr<const Grammar> grammar(const char* schema) {
  static const auto vocabulary = GrammarVocabulary::make(*byte_tokenizer());
  auto made = Grammar::json_schema(nlohmann::ordered_json::parse(schema), vocabulary);
  EXPECT_TRUE(made.ok()) << made.status().message();
  return made.value();
}

constexpr const char* kList =
    R"({"type": "array", "items": {"enum": ["red", 12, null]}, "minItems": 3, "maxItems": 5})";

GenerationRequest structured(const char* schema, std::uint64_t seed) {
  GenerationRequest request = make_request(10, 100, seed);
  request.grammar = grammar(schema);
  return request;
}

TEST(Structured, WhateverTheModelDrawsTheTextIsInTheLanguage) {
  Bench bench;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const auto stream = bench.add(structured(kList, seed));
    const Outcome outcome = bench.finish(*stream);
    const auto value = nlohmann::json::parse(outcome.text(), nullptr, false);
    ASSERT_TRUE(value.is_array()) << outcome.text();
    EXPECT_GE(value.size(), 3U);
    EXPECT_LE(value.size(), 5U);
    // Nothing can follow the last bracket: no step is spent on an end token.
    EXPECT_EQ(outcome.finish().reason, FinishReason::stop);
    EXPECT_EQ(outcome.finish().usage.completion_tokens,
              static_cast<std::int32_t>(outcome.text().size()));
  }
}

TEST(Structured, AnEndTokenComesWhereTheValueIsWholeOnly) {
  EngineOptions options;
  options.end_tokens = {'x'};  // a byte that no number has
  Bench bench(options);
  bool ended_early = false;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const auto stream = bench.add(structured(R"({"type": "integer"})", seed));
    const Outcome outcome = bench.finish(*stream);
    EXPECT_EQ(outcome.finish().reason, FinishReason::stop);
    EXPECT_TRUE(nlohmann::json::parse(outcome.text(), nullptr, false).is_number_integer())
        << outcome.text();
    ended_early = ended_early || outcome.tokens().back() == 'x';
  }
  EXPECT_TRUE(ended_early);
}

TEST(Structured, PreemptionChangesNothing) {
  std::vector<std::string> alone;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    Bench bench;
    alone.push_back(bench.finish(*bench.add(structured(kList, seed))).text());
  }
  // Room for hardly more than one of them.
  Bench crowded({}, simulated_model(14));
  std::vector<std::shared_ptr<Stream>> streams;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    streams.push_back(crowded.add(structured(kList, seed)));
  }
  for (std::size_t i = 0; i < streams.size(); ++i) {
    EXPECT_EQ(crowded.finish(*streams[i]).text(), alone[i]);
  }
  EXPECT_GT(crowded.loop.stats().preemptions, 0);
}

TEST(Structured, ALimitCutsTheText) {
  Bench bench;
  GenerationRequest request = structured(kList, 1);
  request.max_tokens = 2;
  const Outcome outcome = bench.finish(*bench.add(std::move(request)));
  EXPECT_EQ(outcome.finish().reason, FinishReason::length);
  EXPECT_EQ(outcome.text().substr(0, 1), "[");
}

TEST(Structured, AModelThatBreaksTheMaskHasFailed) {
  Bench bench;
  bench.runner.on_result = [](std::vector<SampledToken>& tokens) {
    for (SampledToken& token : tokens) token.token = '}';
  };
  bench.add(structured(kList, 1));
  EXPECT_THROW(bench.run(), std::runtime_error);
}

TEST(Structured, IgnoringTheEndIsRefused) {
  GenerationRequest request = structured(kList, 1);
  request.ignore_eos = true;
  const Status status = validate(request, simulated_model(), 100);
  EXPECT_EQ(status.code(), StatusCode::invalid_argument);
  EXPECT_EQ(status.field(), "ignore_eos");
}

}  // namespace
}  // namespace mobius
