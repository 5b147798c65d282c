#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/tools/tool_call_parser.h"

namespace mobius {

// What the answers of all of OpenAI's endpoints have in common.

/// What all parts of an answer repeat, and how it is to be written.
struct AnswerHead {
  bool chat = true;  ///< of an assistant, or a text completion
  std::string id;
  std::int64_t created = 0;
  std::string model;
  std::vector<std::uint64_t> seeds;  ///< of each choice
  bool seed_is_negative = false;     ///< the first one, which the client chose
  std::size_t n = 1;                 ///< choices of each prompt
  bool include_usage = false;
  bool logprobs = false;
  std::vector<std::string> echo;  ///< texts of the prompts, which begin their choices; or none
  /// Completions: what is echoed has log-probabilities with so many alternatives.
  std::optional<std::size_t> echo_logprobs = {};
  /// The answer lists its prompts' tokens, with so many.
  std::optional<std::size_t> prompt_logprobs = {};
  std::vector<std::string> tool_names;  ///< what choices may call; none: they are text
  bool parallel_tool_calls = true;
  std::string response_members = {};     ///< OpenAiRequest's
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
  std::shared_ptr<const Routing> routing;  ///< where asked for

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

/// The choices of an answer, nothing of them yet.
std::vector<ChoiceText> begin_choices(const AnswerHead& head);

}  // namespace mobius
