#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"
#include "engine/tokenizer/detokenizer.h"
#include "server/http/answer.h"
#include "server/tools/tool_call_parser.h"

namespace mobius {

/// The echo of a prompt on its way, token by token.
class EchoText {
 public:
  explicit EchoText(const Tokenizer& tokenizer) : detokenizer_(tokenizer) {}

  /// What the next token prints; the last one ends an incomplete character.
  std::string push(std::int32_t token, bool last);
  std::size_t characters() const { return characters_; }  ///< printed so far

 private:
  Detokenizer detokenizer_;
  std::size_t characters_ = 0;
};

/// Turns the events of a request's generations into the chunks of an SSE answer, in OpenAI's
/// shapes. Every function returns complete events. Not thread-safe.
class StreamWriter {
 public:
  explicit StreamWriter(AnswerHead head);

  std::string begin();
  std::string progress(std::size_t choice, const PrefillProgress& progress) const;
  /// What of an echo has log-probabilities.
  std::string prompt(std::size_t choice, const PromptTokens& tokens);
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
  std::vector<EchoText> echoes_;
  AnswerTotal total_;
  bool ended_ = false;
};

/// Gathers the tokens of a request's generations into a whole answer, one JSON object.
/// Log-probabilities become text token by token, so that the end of a long answer costs little. Not
/// thread-safe.
class AnswerWriter {
 public:
  explicit AnswerWriter(AnswerHead head);

  void prompt(std::size_t choice, const PromptTokens& tokens);
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
    std::optional<EchoText> echo;
    std::string prompt_logprobs;  // elements of vLLM's list
    std::string choice;           // JSON, once it has ended

    void add(AnswerDelta delta);
  };
  std::string logprobs(const Gathered& choice) const;

  AnswerHead head_;
  std::vector<Gathered> choices_;
  AnswerTotal total_;
  std::string stop_sequence_;  // of the last choice that ended
};

}  // namespace mobius
