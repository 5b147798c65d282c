#include "server/shutdown_signals.h"

#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <ctime>
#include <thread>
#include <utility>

namespace mobius {
namespace {

sigset_t operator_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

sigset_t shutdown_signals() {
  sigset_t set = operator_signals();
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGHUP);
  return set;
}

int wait_for(const sigset_t& set) {
  int signal = 0;
  while (sigwait(&set, &signal) != 0) {
  }
  return signal;
}

}  // namespace

void block_shutdown_signals() {
  const sigset_t set = shutdown_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  // A client that closes its end while we write is an error of that write alone.
  std::signal(SIGPIPE, SIG_IGN);
}

EndAtOnce::EndAtOnce(std::function<void()> last_words)
    : thread_([words = std::move(last_words)](const std::stop_token& stop) {
        const sigset_t set = operator_signals();
        const timespec pause{0, 50'000'000};
        while (!stop.stop_requested()) {
          if (sigtimedwait(&set, nullptr, &pause) < 0) continue;
          words();
          std::_Exit(0);
        }
      }) {}

int wait_for_shutdown_signal(const std::function<void()>& on_hangup) {
  int signal = SIGHUP;
  while ((signal = wait_for(shutdown_signals())) == SIGHUP) on_hangup();
  std::thread([] { std::_Exit(128 + wait_for(operator_signals())); }).detach();
  return signal;
}

void request_shutdown() {
  // To the process: the thread that waits for it takes it, every other one blocks it.
  kill(getpid(), SIGUSR1);
}

}  // namespace mobius
