#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "server/cli/api_client.h"
#include "server/cli/load_plan.h"
#include "server/cli/load_report.h"
#include "server/cli/prompt_text.h"

namespace mobius {

/// How the requests of a plan are made.
struct LoadOptions {
  bool chat = true;                ///< /v1/chat/completions, else /v1/completions
  nlohmann::ordered_json members;  ///< of every request's body: the model, and what a user adds
  /// Requests under way at a time, each followed by the next (a closed loop); 0: every request at
  /// its time, however many are under way (an open loop).
  std::size_t concurrency = 1;
};

/// Sends a plan's requests, streaming, and times the answers. Use once.
///
/// TTFT and E2E count from when a request was due, so that a server that falls behind, or a client
/// that does, cannot hide it.
class LoadGenerator {
 public:
  LoadGenerator(boost::asio::io_context& context, ApiClient& client, LoadOptions options,
                std::vector<PlannedRequest> plan);

  /// Asks the server for two short answers, to learn how long prompts become. They also warm it up.
  /// Throws std::runtime_error if it refuses them.
  boost::asio::awaitable<void> calibrate();
  /// Ends after the last answer, or after `stop`.
  boost::asio::awaitable<void> run();
  /// Sends nothing more and breaks off what is under way; that counts as an error.
  void stop();

  const std::vector<RequestResult>& results() const { return results_; }
  const TokenRate& rate() const { return rate_; }
  double seconds() const { return seconds_; }  ///< of `run`
  std::size_t finished() const { return finished_; }

 private:
  using Clock = std::chrono::steady_clock;

  nlohmann::ordered_json body_of(const std::string& prompt, std::int64_t output_tokens) const;
  const char* path() const { return options_.chat ? "/v1/chat/completions" : "/v1/completions"; }
  boost::asio::awaitable<std::int64_t> prompt_tokens_of(std::int64_t words);
  boost::asio::awaitable<void> request(std::size_t index, Clock::time_point due);
  boost::asio::awaitable<void> closed_worker();
  boost::asio::awaitable<void> open_loop();
  void spawn(boost::asio::awaitable<void> work);

  boost::asio::io_context& context_;
  ApiClient& client_;
  LoadOptions options_;
  std::vector<PlannedRequest> plan_;
  std::vector<RequestResult> results_;
  TokenRate rate_;
  boost::asio::steady_timer wake_;  // between arrivals
  boost::asio::steady_timer idle_;  // cancelled when nothing is under way
  Clock::time_point start_;
  std::size_t next_ = 0;
  std::size_t under_way_ = 0;  // coroutines
  std::size_t finished_ = 0;
  double seconds_ = 0;
  bool stopped_ = false;
};

}  // namespace mobius
