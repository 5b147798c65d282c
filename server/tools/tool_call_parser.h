#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/tokenizer.h"

namespace mobius {

/// More of one call.
struct ToolCallDelta {
  std::size_t index = 0;  ///< among the answer's calls
  std::string name;       ///< in the first delta of a call, and in no other
  std::string arguments;  ///< what is new of the JSON text
};

/// What became of a piece of an answer.
struct AnswerDelta {
  std::string content;
  std::vector<ToolCallDelta> calls;

  bool empty() const { return content.empty() && calls.empty(); }
};

/// Finds calls in an answer of Llama 3.1 while it is written. What may become a call is held back
/// until its name is known; then its arguments go out as they come. A call is
///
/// - a JSON object at the answer's beginning, behind another call, or behind the token
///   <|python_tag|>, that has a "name", one of the tools', and "parameters" (or "arguments");
///   ';', ',' and white space may lie between calls;
/// - <|python_tag|>NAME.call(KEY=VALUE, ...), the form of Llama's own tools, known at the end only;
/// - <|python_tag|> and anything else, if there is a tool "code_interpreter": its argument "code".
///
/// All other text is content, unchanged. What is found does not depend on how the text is cut. Not
/// thread-safe.
class ToolCallParser {
 public:
  /// `names`: the tools'. Without `several`, an answer ends with its first call: what follows is
  /// dropped. `tokenizer` says which token is <|python_tag|>.
  ToolCallParser(std::vector<std::string> names, bool several, const Tokenizer& tokenizer);

  /// `text` is what became printable with the token.
  AnswerDelta push(std::int32_t token, std::string_view text);
  /// The end, with the text held back until then.
  AnswerDelta finish(std::string_view text);

  /// Calls found so far, an unfinished one included.
  std::size_t calls() const { return calls_; }

 private:
  enum class State : std::uint8_t {
    between,  // white space before a call, or before the first text
    member,   // behind '{' or ',': a key comes
    key,      // inside it
    colon,    // behind it
    value,    // before or inside a value
    behind,   // behind a value
    code,     // behind <|python_tag|>, and no JSON
    content,  // no call comes any more
    dropped,  // nor anything else
  };

  void take(char c, AnswerDelta& out);
  void step(char c, AnswerDelta& out);
  void begin_value(char c, AnswerDelta& out);
  void step_value(char c, AnswerDelta& out);
  void end_value(char c, AnswerDelta& out);
  void end_object(char c, AnswerDelta& out);
  void begin_call(AnswerDelta& out);
  void end_call();
  void give_up(char c, AnswerDelta& out);
  void meet_tag(AnswerDelta& out);
  void end_code(AnswerDelta& out);
  bool is_tool(std::string_view name) const;

  std::vector<std::string> names_;
  bool several_;
  std::optional<std::int32_t> python_tag_;

  State state_ = State::between;
  bool tagged_ = false;  // since the last <|python_tag|>
  std::size_t calls_ = 0;
  std::string held_;  // text that is content if no call comes of it

  // The object being read.
  bool begun_ = false;    // its call is known
  bool wrapped_ = false;  // inside its "function"
  bool first_ = false;    // no member yet
  std::string key_;       // JSON text, without quotes
  std::string name_;
  bool has_arguments_ = false;
  std::string arguments_;  // that came before the name

  // Its value being read.
  bool value_begun_ = false;
  bool streaming_ = false;  // arguments that go out as they come
  bool scalar_ = false;     // a number or a word: what follows ends it
  bool string_ = false;     // inside a string
  bool escaped_ = false;    // behind a backslash
  std::size_t depth_ = 0;
  std::string value_;  // where it is not streaming
};

/// A call's id: unique among all of the server's.
std::string tool_call_id(std::string_view answer_id, std::size_t choice, std::size_t index);

}  // namespace mobius
