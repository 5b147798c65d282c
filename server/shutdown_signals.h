#pragma once

#include <functional>
#include <stop_token>
#include <thread>

namespace mobius {

/// Blocks SIGINT, SIGTERM, SIGUSR1 and SIGHUP for this thread and all that it starts later, so that
/// they wait for `wait_for_shutdown_signal`, and ignores SIGPIPE. Call before any thread exists.
void block_shutdown_signals();

/// While this lives, SIGINT and SIGTERM end the process at once, with exit code 0: for the time in
/// which there is nothing to finish yet. `last_words` comes before, on a thread of its own.
class EndAtOnce {
 public:
  explicit EndAtOnce(std::function<void()> last_words);

 private:
  std::jthread thread_;
};

/// Returns the number of the first SIGINT or SIGTERM, or SIGUSR1 after `request_shutdown`. From
/// then on SIGINT and SIGTERM end the process at once. Calls `on_hangup` for every SIGHUP before.
int wait_for_shutdown_signal(const std::function<void()>& on_hangup);

/// Ends `wait_for_shutdown_signal`, from any thread.
void request_shutdown();

}  // namespace mobius
