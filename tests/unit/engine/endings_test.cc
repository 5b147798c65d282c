// How answers end, and what is shown of their text until then.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/unit/engine/support.h"

namespace mobius {
namespace {

using testing::ElementsAre;

// Runs one request whose generated tokens are these bytes.
Outcome generate(const std::string& text, GenerationRequest request,
                 std::vector<std::int32_t> end_tokens = {}) {
  RunnerInfo model = simulated_model();
  model.vocab_size = 512;
  Bench bench(engine_options(4, 16, std::move(end_tokens)), model);
  bench.runner.scripts[request.sampling.seed] = bytes(text);
  const auto stream = bench.add(std::move(request));
  return bench.finish(*stream);
}

GenerationRequest with_stop(std::vector<std::string> stop, std::int32_t max_tokens = 50) {
  GenerationRequest request = make_request(5, max_tokens, 1);
  request.stop = std::move(stop);
  return request;
}

TEST(Endings, EndTokenStopsAndPrintsNothing) {
  GenerationRequest request = make_request(5, 50, 1);
  const Outcome outcome = generate("hi!", request, {'!'});
  EXPECT_THAT(outcome.tokens(), ElementsAre('h', 'i', '!'));
  EXPECT_EQ(outcome.text(), "hi");
  EXPECT_EQ(outcome.finish().reason, FinishReason::stop);
  EXPECT_EQ(outcome.finish().stop_sequence, "");
  EXPECT_EQ(outcome.finish().usage.completion_tokens, 3);
}

TEST(Endings, IgnoreEosGoesOnButStopTokensHold) {
  GenerationRequest request = make_request(5, 50, 1);
  request.ignore_eos = true;
  request.stop_tokens = {'.'};
  const Outcome outcome = generate("hi! you.", request, {'!'});
  EXPECT_EQ(outcome.text(), "hi! you");
  EXPECT_EQ(outcome.finish().reason, FinishReason::stop);
}

TEST(Endings, EndTokenAsLastAllowedTokenIsAStop) {
  const Outcome outcome = generate("hi!", make_request(5, 3, 1), {'!'});
  EXPECT_EQ(outcome.finish().reason, FinishReason::stop);
}

TEST(Endings, StopStringAcrossTokensIsNotShown) {
  const Outcome outcome = generate("some text\n\nUser: more", with_stop({"never", "\n\nUser:"}));
  EXPECT_EQ(outcome.text(), "some text");
  EXPECT_EQ(outcome.finish().reason, FinishReason::stop);
  EXPECT_EQ(outcome.finish().stop_sequence, "\n\nUser:");
  EXPECT_EQ(outcome.finish().usage.completion_tokens, 16);
  EXPECT_EQ(outcome.deltas.back().text, "");
}

TEST(Endings, HeldBackTextComesWithTheTokenThatClearsIt) {
  const Outcome outcome = generate("a##b", with_stop({"###"}, 4));
  std::vector<std::string> texts;
  for (const TokenDelta& delta : outcome.deltas) texts.push_back(delta.text);
  EXPECT_THAT(texts, ElementsAre("a", "", "", "##b"));
}

TEST(Endings, HeldBackTextComesWithTheEnd) {
  const Outcome outcome = generate("a##", with_stop({"###"}, 3));
  EXPECT_EQ(outcome.finish().reason, FinishReason::length);
  EXPECT_EQ(outcome.finish().text, "##");
  EXPECT_EQ(outcome.finish().stop_sequence, "");
}

TEST(Endings, NeverCutsACharacter) {
  // Each of these characters is two to four tokens.
  const std::string text = "äöü€🙂x";
  const Outcome outcome = generate(text, with_stop({}, static_cast<std::int32_t>(text.size())));
  EXPECT_EQ(outcome.text(), text);
  EXPECT_EQ(outcome.deltas[0].text, "");
  EXPECT_EQ(outcome.deltas[1].text, "ä");
}

TEST(Endings, StopStringOfCharactersThatShareBytes) {
  // ö and ü share their first byte; the stop begins with one and must not match the other.
  const Outcome outcome = generate("xöüö€!", with_stop({"ö€"}));
  EXPECT_EQ(outcome.text(), "xöü");
  EXPECT_EQ(outcome.finish().stop_sequence, "ö€");
}

TEST(Endings, IncompleteCharacterAtTheEndBecomesAReplacement) {
  const Outcome outcome = generate("a\xE2\x82", with_stop({}, 3));
  EXPECT_EQ(outcome.deltas[2].text, "");
  EXPECT_EQ(outcome.finish().text, "\xEF\xBF\xBD");
}

TEST(Endings, StopStringWinsOverLength) {
  const Outcome outcome = generate("abcd", with_stop({"cd"}, 4));
  EXPECT_EQ(outcome.finish().reason, FinishReason::stop);
  EXPECT_EQ(outcome.text(), "ab");
}

TEST(Endings, SpecialTokensPrintNothing) {
  RunnerInfo model = simulated_model();
  model.vocab_size = 512;
  Bench bench(engine_options(4, 16, {kEndOfTurn}), model);
  bench.runner.scripts[3] = {'o', 'k', 256, kEndOfTurn};
  const Outcome outcome = bench.finish(*bench.add(make_request(3, 50, 3)));
  EXPECT_EQ(outcome.text(), "ok");
  EXPECT_EQ(outcome.deltas.size(), 4U);
  EXPECT_EQ(outcome.finish().reason, FinishReason::stop);
}

}  // namespace
}  // namespace mobius
