#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/request.h"
#include "engine/tokenizer/tokenizer.h"

namespace mobius {

/// What all parts of an answer repeat, and how it is to be written.
struct AnswerHead {
  bool chat = true;  ///< /v1/chat/completions or /v1/completions
  std::string id;
  std::int64_t created = 0;
  std::string model;
  std::uint64_t seed = 0;
  bool include_usage = false;
  bool logprobs = false;
  const Tokenizer* tokenizer = nullptr;  ///< for the text of logprobs
};

/// One Server-Sent Event. `json` has no line breaks.
std::string sse_event(std::string_view json);
/// What ends a stream, and the comment that keeps an idle one open.
inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";
inline constexpr std::string_view kSseKeepAlive = ": keep-alive\n\n";

/// Turns the events of one generation into the chunks of an SSE answer, in OpenAI's shapes. Every
/// function returns complete events. Not thread-safe.
class StreamWriter {
 public:
  explicit StreamWriter(AnswerHead head) : head_(std::move(head)) {}

  std::string begin() const;
  std::string progress(const PrefillProgress& progress) const;
  /// Empty when the token shows nothing (an incomplete character, and no logprobs asked for).
  std::string token(const TokenDelta& delta);
  /// The finish reason, usage if asked for, the `mobius` object and [DONE]; for a failure the error
  /// and [DONE].
  std::string finish(const Finish& finish) const;

 private:
  AnswerHead head_;
  std::size_t characters_ = 0;  // written so far: text_offset of completions' logprobs
};

/// Gathers the tokens of one generation into a whole answer, one JSON object. Log-probabilities
/// become text token by token, so that the end of a long answer costs little. Not thread-safe.
class AnswerWriter {
 public:
  explicit AnswerWriter(AnswerHead head) : head_(std::move(head)) {}

  void token(const TokenDelta& delta);
  /// `finish.reason` is not error. Call once, last.
  std::string finish(const Finish& finish);

 private:
  AnswerHead head_;
  std::string text_;
  std::size_t characters_ = 0;  // of text_
  std::string content_;         // chat: the elements of logprobs.content
  // completions: the elements of the four lists
  std::string text_offset_;
  std::string token_logprobs_;
  std::string tokens_;
  std::string top_logprobs_;
};

}  // namespace mobius
