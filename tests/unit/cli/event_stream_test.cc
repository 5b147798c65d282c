#include "server/cli/event_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "server/cli/chat_screen.h"

namespace mobius {
namespace {

using testing::ElementsAre;
using testing::StartsWith;

TEST(EventStream, CutsWhateverThePieces) {
  const std::string whole =
      ": a comment\n\ndata: one\n\nevent: x\ndata:two\r\n\r\nid: 3\ndata: [DONE]\n\n";
  for (std::size_t size = 1; size <= whole.size(); ++size) {
    EventStream stream;
    std::vector<std::string> events;
    for (std::size_t i = 0; i < whole.size(); i += size) {
      stream.feed(std::string_view(whole).substr(i, size),
                  [&](std::string_view data) { events.emplace_back(data); });
    }
    EXPECT_THAT(events, ElementsAre("one", "two", "[DONE]")) << size;
  }
}

TEST(AnswerEvent, TextOfEveryKindOfAnswer) {
  EXPECT_EQ(read_answer_event(R"({"choices": [{"index": 0, "delta": {"content": "a"}}]})").text,
            "a");
  EXPECT_EQ(read_answer_event(R"({"choices": [{"delta": {"reasoning_content": "r"}}]})").text, "r");
  EXPECT_EQ(read_answer_event(R"({"choices": [{"text": "b", "finish_reason": "stop"}]})").text,
            "b");
  EXPECT_EQ(read_answer_event(R"({"choices": [{"index": 1, "text": "c"}]})").text, "");
  EXPECT_EQ(read_answer_event(R"({"choices": [{"delta": {"content": null}}]})").text, "");
  EXPECT_TRUE(read_answer_event("[DONE]").done);
}

TEST(AnswerEvent, UsageProgressAndShares) {
  const AnswerEvent usage = read_answer_event(
      R"({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 3,
          "prompt_tokens_details": {"cached_tokens": 4}},
          "mobius": {"prefill_blocks": {"read": 1, "total": 4}}})");
  ASSERT_TRUE(usage.usage.has_value());
  EXPECT_EQ(usage.usage->prompt_tokens, 10);
  EXPECT_EQ(usage.usage->cached_tokens, 4);
  EXPECT_EQ(usage.usage->completion_tokens, 3);
  EXPECT_EQ(usage.prefill_share, 0.25);
  EXPECT_LT(usage.decode_share, 0);
  const AnswerEvent progress = read_answer_event(
      R"({"choices": [], "usage": null, "mobius": {"progress": {"total": 8, "done": 2}}})");
  ASSERT_TRUE(progress.progress.has_value());
  EXPECT_EQ(progress.progress->done, 2);
  EXPECT_LT(progress.progress->seconds_left, 0);
  EXPECT_FALSE(progress.usage.has_value());
}

TEST(AnswerEvent, ErrorsAndNonsense) {
  EXPECT_EQ(read_answer_event(R"({"error": {"message": "no"}})").error, "no");
  EXPECT_THROW(read_answer_event("<html>"), std::runtime_error);
  EXPECT_THROW(read_answer_event("[1]"), std::runtime_error);
  // Members of other types than OpenAI's say nothing.
  EXPECT_EQ(read_answer_event(R"({"choices": 1, "usage": [], "mobius": "x"})").text, "");
}

TEST(ErrorMessage, OfAnyServer) {
  EXPECT_EQ(error_message(R"({"error": {"message": "a"}})"), "a");
  EXPECT_EQ(error_message(R"({"error": "b"})"), "b");
  EXPECT_EQ(error_message(R"({"message": "c"})"), "c");
  EXPECT_THAT(error_message("<html>502</html>"), StartsWith("<html>"));
  EXPECT_EQ(error_message(""), "no reason given");
}

TEST(Printable, KeepsTextAndTakesControls) {
  EXPECT_EQ(printable("Grüße, 世界\n\tx"), "Grüße, 世界\n\tx");
  EXPECT_EQ(printable("\x1b[31m"), "\xEF\xBF\xBD[31m");
  EXPECT_EQ(printable("a\r\bb\x7f"),
            "a\xEF\xBF\xBD\xEF\xBF\xBD"
            "b\xEF\xBF\xBD");
  EXPECT_EQ(printable("\xC2\x9B"
                      "2J"),
            "\xEF\xBF\xBD"
            "2J");
}

}  // namespace
}  // namespace mobius
