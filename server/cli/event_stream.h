#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace mobius {

/// Cuts server-sent events out of the pieces in which they arrive. Comments and other fields than
/// `data` are passed over; OpenAI's events have one line of data each. Not thread-safe.
class EventStream {
 public:
  /// Calls `on_data` for each line of data that is whole by now.
  void feed(std::string_view piece, const std::function<void(std::string_view)>& on_data);

 private:
  std::string pending_;  // a line that has not ended
};

/// What one event of a streamed answer says; what it does not say is empty.
struct AnswerEvent {
  bool done = false;          ///< [DONE]
  std::string text;           ///< of the first choice, of chats and text completions alike
  std::string finish_reason;  ///< of the first choice
  std::string error;          ///< the server broke off, and why
  struct Usage {
    std::int64_t prompt_tokens = 0;
    std::int64_t cached_tokens = 0;
    std::int64_t completion_tokens = 0;
  };
  std::optional<Usage> usage;
  /// Mobius only: how far the prompt is computed.
  struct Progress {
    std::int64_t total = 0;
    std::int64_t done = 0;  ///< tokens, cached ones included
    double seconds_left = -1;
  };
  std::optional<Progress> progress;
  /// Mobius only: shares of full attention's KV blocks that were read; negative where unknown.
  double prefill_share = -1;
  double decode_share = -1;
};

/// Reads the data of one event. Throws std::runtime_error if it is not JSON.
AnswerEvent read_answer_event(std::string_view data);

/// The message of an error's body in OpenAI's form, or the beginning of the body.
std::string error_message(std::string_view body);

}  // namespace mobius
