#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/tools/tool_call_parser.h"

namespace mobius {

/// What all parts of an answer repeat, and how it is to be written.
struct AnswerHead {
  bool chat = true;  ///< /v1/chat/completions or /v1/completions
  std::string id;
  std::int64_t created = 0;
  std::string model;
  std::vector<std::uint64_t> seeds;  ///< of each choice
  std::size_t n = 1;                 ///< choices of each prompt
  bool include_usage = false;
  bool logprobs = false;
  std::vector<std::string> echo;  ///< texts of the prompts, which begin their choices; or none
  std::vector<std::string> tool_names;  ///< what choices may call; none: they are text
  bool parallel_tool_calls = true;
  const Tokenizer* tokenizer = nullptr;  ///< for the text of logprobs, and <|python_tag|>
};

/// One Server-Sent Event. `json` has no line breaks.
std::string sse_event(std::string_view json);
/// What ends a stream, and the comment that keeps an idle one open.
inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";
inline constexpr std::string_view kSseKeepAlive = ": keep-alive\n\n";

/// What the choices of an answer come to together. Prompt tokens count once for each prompt.
class AnswerTotal {
 public:
  explicit AnswerTotal(const AnswerHead& head);

  void add(std::size_t choice, const Finish& finish);
  /// All choices have been added.
  bool complete() const { return missing_ == 0; }

  Usage usage;  ///< cached tokens: those that no choice computed
  Timing timing;
  BlockReads prefill_reads;
  BlockReads decode_reads;

 private:
  std::size_t n_;
  std::size_t missing_;
  std::vector<std::optional<std::int32_t>> cached_;  // of each prompt
};

/// One choice on its way: what its tokens have become so far.
struct ChoiceText {
  std::optional<ToolCallParser> parser;
  std::size_t characters = 0;  ///< of content: text_offset of completions' logprobs

  /// What a token adds; `text` is what became printable with it.
  AnswerDelta push(std::int32_t token, std::string_view text);
  AnswerDelta finish(std::string_view text);
  bool has_calls() const { return parser.has_value() && parser->calls() > 0; }
};

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
