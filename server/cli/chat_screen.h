#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "server/cli/event_stream.h"

namespace mobius {

/// What is worth a line after an answer.
struct AnswerSummary {
  using Clock = std::chrono::steady_clock;
  Clock::time_point asked = Clock::now();
  std::optional<Clock::time_point> first_text;
  Clock::time_point last_text;
  std::optional<AnswerEvent::Usage> usage;
  double prefill_share = -1;
  double decode_share = -1;

  void text_arrived() {
    last_text = Clock::now();
    if (!first_text) first_text = last_text;
  }
};

/// Where a conversation is shown: answers on standard output, everything else on standard error,
/// and of that only errors where it is no terminal.
class ChatScreen {
 public:
  ChatScreen(bool output_is_terminal, bool error_is_terminal)
      : output_is_terminal_(output_is_terminal), error_is_terminal_(error_is_terminal) {}

  /// How far the prompt is read, on one line that the answer replaces.
  void progress(std::int64_t done, std::int64_t total, double seconds_left);
  void text(std::string_view text);
  void end_of_answer(bool stopped);
  void summary(const AnswerSummary& summary);
  void note(std::string_view text);
  void error(std::string_view text);

 private:
  void clear_progress();

  bool output_is_terminal_;
  bool error_is_terminal_;
  bool progress_shown_ = false;
  bool line_open_ = false;  // the answer's last character was no line's end
};

/// A text without what steers a terminal: control characters but line ends and tabs, of ASCII and
/// of Unicode's second block (U+0080 to U+009F), become U+FFFD. A model may have read such
/// sequences in a document that somebody else wrote.
std::string printable(std::string_view utf8);

}  // namespace mobius
