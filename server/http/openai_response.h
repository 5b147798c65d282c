#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"
#include "server/http/answer.h"
#include "server/tools/tool_call_parser.h"

namespace mobius {

/// Turns the events of a request's generations into the chunks of an SSE answer, in OpenAI's
/// shapes. Every function returns complete events. Not thread-safe.
class StreamWriter {
 public:
  explicit StreamWriter(AnswerHead head);

  std::string begin();
  std::string progress(std::size_t choice, const PrefillProgress& progress) const;
  /// Empty when the token shows nothing (an incomplete character, what may become a call) and no
  /// logprobs were asked for.
  std::string token(std::size_t choice, const TokenDelta& delta);
  /// The finish reason of a choice; after the last one usage if asked for, the `mobius` object and
  /// [DONE]. A failure of one ends the stream: its error and [DONE].
  std::string finish(std::size_t choice, const Finish& finish);
  /// [DONE] was written.
  bool ended() const { return ended_; }

 private:
  AnswerHead head_;
  std::vector<ChoiceText> choices_;
  AnswerTotal total_;
  bool ended_ = false;
};

/// Gathers the tokens of a request's generations into a whole answer, one JSON object.
/// Log-probabilities become text token by token, so that the end of a long answer costs little. Not
/// thread-safe.
class AnswerWriter {
 public:
  explicit AnswerWriter(AnswerHead head);

  void token(std::size_t choice, const TokenDelta& delta);
  /// `finish.reason` is not error.
  void finish(std::size_t choice, const Finish& finish);
  /// Once, after all choices have ended.
  std::string text() const;

 private:
  struct Gathered {
    ChoiceText state;
    std::string text;  // content
    std::vector<ToolCallDelta> calls;
    std::string content;  // chat: the elements of logprobs.content
    // completions: the elements of the four lists
    std::string text_offset;
    std::string token_logprobs;
    std::string tokens;
    std::string top_logprobs;
    std::string choice;  // JSON, once it has ended

    void add(AnswerDelta delta);
  };
  std::string logprobs(const Gathered& choice) const;

  AnswerHead head_;
  std::vector<Gathered> choices_;
  AnswerTotal total_;
  std::string stop_sequence_;  // of the last choice that ended
};

}  // namespace mobius
