#include "server/cli/load_generator.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <stdexcept>
#include <utility>

#include "server/cli/event_stream.h"

namespace mobius {

namespace asio = boost::asio;

namespace {

using Json = nlohmann::ordered_json;
constexpr auto kUse = asio::as_tuple(asio::use_awaitable);

double seconds_between(std::chrono::steady_clock::time_point from,
                       std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

LoadGenerator::LoadGenerator(asio::io_context& context, ApiClient& client, LoadOptions options,
                             std::vector<PlannedRequest> plan)
    : context_(context),
      client_(client),
      options_(std::move(options)),
      plan_(std::move(plan)),
      results_(plan_.size()),
      wake_(context),
      idle_(context) {}

Json LoadGenerator::body_of(const std::string& prompt, std::int64_t output_tokens) const {
  Json body = {{"max_tokens", output_tokens},
               {"temperature", 0},
               {"stream", true},
               {"stream_options", {{"include_usage", true}}}};
  if (options_.chat) {
    body["messages"] = Json::array({{{"role", "user"}, {"content", prompt}}});
  } else {
    body["prompt"] = prompt;
  }
  for (const auto& [name, value] : options_.members.items()) {
    // Null takes a member away: a server may know it by another name.
    if (value.is_null()) {
      body.erase(name);
    } else {
      body[name] = value;
    }
  }
  return body;
}

asio::awaitable<std::int64_t> LoadGenerator::prompt_tokens_of(std::int64_t words) {
  Json body = body_of(filler_words(static_cast<std::uint64_t>(words), words), 1);
  body.erase("stream");
  body.erase("stream_options");
  const ApiReply reply = co_await client_.send(path(), body.dump());
  if (!reply.error.empty()) throw std::runtime_error(reply.error);
  const Json json = Json::parse(reply.body, nullptr, false);
  const auto pointer = Json::json_pointer("/usage/prompt_tokens");
  if (!json.is_object() || !json.contains(pointer) || !json[pointer].is_number()) co_return 0;
  co_return json[pointer].get<std::int64_t>();
}

asio::awaitable<void> LoadGenerator::calibrate() {
  constexpr std::int64_t kFew = 4;
  constexpr std::int64_t kMany = 132;
  const std::int64_t few = co_await prompt_tokens_of(kFew);
  rate_ = TokenRate::of(kFew, few, kMany, co_await prompt_tokens_of(kMany));
}

asio::awaitable<void> LoadGenerator::request(std::size_t index, Clock::time_point due) {
  const PlannedRequest& planned = plan_[index];
  RequestResult& result = results_[index];
  const std::string body = body_of(prompt_text(planned, rate_), planned.output_tokens).dump();
  result.began = true;
  result.at = seconds_between(start_, due);
  result.late = seconds_between(due, Clock::now());
  result.prompt_tokens = planned.prompt_tokens;
  Clock::time_point last_text;
  bool whole = false;
  std::int64_t events_with_text = 0;
  EventStream events;
  Clock::time_point now;
  const auto on_event = [&](std::string_view data) {
    const AnswerEvent event = read_answer_event(data);
    whole = whole || event.done;
    if (!event.error.empty()) result.error = event.error;
    if (event.usage) {
      result.prompt_tokens = event.usage->prompt_tokens;
      result.cached_tokens = event.usage->cached_tokens;
      result.output_tokens = event.usage->completion_tokens;
    }
    if (event.text.empty()) return;
    if (events_with_text++ == 0) {
      result.first_token = seconds_between(due, now);
    } else {
      result.gaps.push_back(seconds_between(last_text, now));
    }
    last_text = now;
  };
  try {
    const ApiReply reply = co_await client_.send(path(), body, [&](std::string_view piece) {
      now = Clock::now();
      events.feed(piece, on_event);
    });
    if (result.error.empty()) result.error = reply.error;
    if (result.error.empty() && !whole) result.error = "the answer broke off before its end";
  } catch (const std::exception& error) {
    result.error = error.what();
  }
  // A server that does not count: an event is a token in most of them.
  if (result.output_tokens == 0) result.output_tokens = events_with_text;
  const Clock::time_point end = Clock::now();
  result.end_to_end = seconds_between(due, end);
  seconds_ = std::max(seconds_, seconds_between(start_, end));
  ++finished_;
}

asio::awaitable<void> LoadGenerator::closed_worker() {
  while (!stopped_ && next_ < plan_.size()) {
    const std::size_t index = next_++;
    co_await request(index, Clock::now());
  }
}

asio::awaitable<void> LoadGenerator::open_loop() {
  while (!stopped_ && next_ < plan_.size()) {
    const Clock::time_point due = start_ + std::chrono::duration_cast<Clock::duration>(
                                               std::chrono::duration<double>(plan_[next_].at));
    wake_.expires_at(due);
    co_await wake_.async_wait(kUse);
    if (stopped_) break;
    spawn(request(next_++, due));
  }
}

void LoadGenerator::spawn(asio::awaitable<void> work) {
  ++under_way_;
  asio::co_spawn(context_, std::move(work), [this](const std::exception_ptr& failure) {
    if (--under_way_ == 0) idle_.cancel();
    if (failure) std::rethrow_exception(failure);
  });
}

asio::awaitable<void> LoadGenerator::run() {
  start_ = Clock::now();
  idle_.expires_at(Clock::time_point::max());
  if (options_.concurrency == 0) {
    spawn(open_loop());
  } else {
    for (std::size_t i = 0; i < std::min(options_.concurrency, plan_.size()); ++i) {
      spawn(closed_worker());
    }
  }
  if (under_way_ > 0) co_await idle_.async_wait(kUse);
}

void LoadGenerator::stop() {
  stopped_ = true;
  wake_.cancel();
  client_.abort();
}

}  // namespace mobius
