#include "server/cli/chat_screen.h"

#include <array>
#include <cstdio>
#include <iostream>

namespace mobius {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// 12345 as 12,345.
std::string grouped(std::int64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

template <typename... Values>
std::string formatted(const char* format, Values... values) {
  std::array<char, 128> text{};
  std::snprintf(text.data(), text.size(), format, values...);
  return text.data();
}

}  // namespace

std::string printable(std::string_view utf8) {
  std::string result;
  for (std::size_t i = 0; i < utf8.size(); ++i) {
    const auto byte = static_cast<unsigned char>(utf8[i]);
    const auto next = i + 1 < utf8.size() ? static_cast<unsigned char>(utf8[i + 1]) : 0U;
    if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F) {
      result += kReplacement;
    } else if (byte == 0xC2 && next >= 0x80 && next < 0xA0) {
      result += kReplacement;
      ++i;
    } else {
      result += utf8[i];
    }
  }
  return result;
}

void ChatScreen::progress(std::int64_t done, std::int64_t total, double seconds_left) {
  if (!error_is_terminal_ || total <= 0) return;
  std::string line = "reading " + grouped(done) + " of " + grouped(total) + " tokens, " +
                     std::to_string(100 * done / total) + " %";
  if (seconds_left >= 1) line += formatted(", %.0f s left", seconds_left);
  std::cerr << "\r\x1b[K" << line << std::flush;
  progress_shown_ = true;
}

void ChatScreen::clear_progress() {
  if (progress_shown_) std::cerr << "\r\x1b[K" << std::flush;
  progress_shown_ = false;
}

void ChatScreen::text(std::string_view text) {
  clear_progress();
  std::cout << (output_is_terminal_ ? printable(text) : std::string(text)) << std::flush;
  line_open_ = !text.ends_with('\n');
}

void ChatScreen::end_of_answer(bool stopped) {
  clear_progress();
  if (line_open_) std::cout << '\n' << std::flush;
  line_open_ = false;
  if (stopped) note("(stopped)\n");
}

void ChatScreen::summary(const AnswerSummary& summary) {
  if (!summary.first_text) return;
  const auto seconds = [](AnswerSummary::Clock::duration time) {
    return std::chrono::duration<double>(time).count();
  };
  std::string line(1, '(');
  if (summary.usage) {
    line.append(grouped(summary.usage->prompt_tokens)).append(" tokens read, ");
    if (summary.usage->cached_tokens > 0) {
      line.append(grouped(summary.usage->cached_tokens)).append(" of them from the cache, ");
    }
  }
  line += formatted("first token after %.2f s", seconds(*summary.first_text - summary.asked));
  const double spent = seconds(summary.last_text - *summary.first_text);
  if (summary.usage && summary.usage->completion_tokens > 1 && spent > 0) {
    line += formatted(", then %.1f tokens/s",
                      static_cast<double>(summary.usage->completion_tokens - 1) / spent);
  }
  if (summary.prefill_share >= 0) {
    line += formatted(", %.0f %% of the blocks read", 100 * summary.prefill_share);
  }
  line += ")\n";
  note(line);
}

void ChatScreen::note(std::string_view text) {
  if (error_is_terminal_) std::cerr << text << std::flush;
}

void ChatScreen::error(std::string_view text) {
  clear_progress();
  std::cerr << "mobius: " << printable(text) << '\n';
}

}  // namespace mobius
