#include "engine/stop_matcher.h"

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <string>
#include <vector>

namespace mobius {
namespace {

struct Result {
  std::string text;
  std::optional<std::string> stop;
};

// Feeds `text` in pieces of the given sizes, the last one repeated.
Result match(const std::vector<std::string>& stops, const std::string& text,
             const std::vector<std::size_t>& sizes) {
  StopMatcher matcher(stops);
  Result result;
  std::size_t piece = 0;
  for (std::size_t at = 0; at < text.size() && !matcher.stopped();) {
    const std::size_t size = sizes[std::min(piece++, sizes.size() - 1)];
    result.text += matcher.push(std::string_view(text).substr(at, size));
    at += size;
  }
  if (matcher.stopped()) result.stop = matcher.stop();
  result.text += matcher.finish();
  return result;
}

// What the class promises, without streaming: the stop that is complete first, the longest of
// those.
Result reference(const std::vector<std::string>& stops, const std::string& text) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    const std::string* best = nullptr;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0 &&
          (best == nullptr || stop.size() > best->size())) {
        best = &stop;
      }
    }
    if (best != nullptr) return {text.substr(0, end - best->size()), *best};
  }
  return {text, std::nullopt};
}

TEST(StopMatcher, PassesTextThroughWithoutStops) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.push("abc"), "abc");
  EXPECT_FALSE(matcher.stopped());
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"###"});
  EXPECT_EQ(matcher.push("one #"), "one ");
  EXPECT_EQ(matcher.push("#"), "");
  EXPECT_EQ(matcher.push(""), "");
  EXPECT_EQ(matcher.push("two#"), "##two");
  EXPECT_EQ(matcher.finish(), "#");
}

TEST(StopMatcher, EndsBeforeTheStopAndSwallowsTheRest) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("textE"), "text");
  EXPECT_EQ(matcher.push("ND and more"), "");
  ASSERT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.stop(), "END");
  EXPECT_EQ(matcher.push("x"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, FallsBackInsideAStopThatRepeatsItself) {
  StopMatcher matcher({"aab"});
  EXPECT_EQ(matcher.push("aaa"), "a");
  EXPECT_EQ(matcher.push("b"), "");
  EXPECT_TRUE(matcher.stopped());
}

TEST(StopMatcher, OfStopsThatEndTogetherTheLongestWins) {
  const Result result = match({"b", "ab", "zab"}, "xab", {3});
  EXPECT_EQ(result.text, "x");
  EXPECT_EQ(result.stop, "ab");
}

TEST(StopMatcher, RandomTextAndCutsAgreeWithTheWholeText) {
  std::mt19937 random(3);
  int stopped = 0;
  for (int round = 0; round < 5000; ++round) {
    const auto word = [&](std::size_t longest) {
      std::string out(1 + random() % longest, 'a');
      for (char& c : out) c = static_cast<char>('a' + random() % 2);
      return out;
    };
    std::vector<std::string> stops;
    for (std::size_t i = random() % 4; i > 0; --i) stops.push_back(word(6));
    const std::string text = word(30);
    std::vector<std::size_t> sizes;
    for (int i = 0; i < 30; ++i) sizes.push_back(1 + random() % 5);
    const Result expected = reference(stops, text);
    const Result result = match(stops, text, sizes);
    ASSERT_EQ(result.text, expected.text);
    ASSERT_EQ(result.stop, expected.stop);
    if (expected.stop) ++stopped;
  }
  EXPECT_GT(stopped, 1000);
}

}  // namespace
}  // namespace mobius
