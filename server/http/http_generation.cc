#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdio>
#include <exception>
#include <new>
#include <utility>

#include "server/http/http_session.h"
#include "server/http/http_status.h"

namespace mobius {

namespace asio = boost::asio;

namespace {

/// Larger bodies are parsed elsewhere: at about 100 MB/s this is a few milliseconds.
constexpr std::size_t kLargeBody = std::size_t{256} << 10U;
/// Bytes of later requests that are read while this one is answered.
constexpr std::size_t kMaxPipelined = std::size_t{32} << 10U;

std::string chunk_of(std::string_view data) {
  char size[20];
  std::snprintf(size, sizeof size, "%zx\r\n", data.size());
  std::string chunk = size;
  chunk.append(data).append("\r\n");
  return chunk;
}

std::string text_of(const Prompt& prompt, const Tokenizer& tokenizer) {
  if (const auto* text = std::get_if<std::string>(&prompt)) return *text;
  return tokenizer.decode(std::get<std::vector<std::int32_t>>(prompt));
}

/// Its error, if it is one, in the client's words.
Finish with_names(Finish finish, const OpenAiNames& names) {
  if (!finish.status.ok()) finish.status = with_names(finish.status, names);
  return finish;
}

}  // namespace

/// One request's generations. Shared with callbacks of other threads, which only post to the
/// strand; every member but `abandoned` belongs to it.
struct HttpSession::Job {
  GenerationService& service;
  std::shared_ptr<std::atomic<bool>> abandoned = std::make_shared<std::atomic<bool>>(false);
  std::optional<StatusOr<OpenAiRequest>> parsed;
  std::optional<StatusOr<Generation>> started;
  OpenAiNames names;
  bool streamed = false;
  AnswerHead head;
  std::vector<Choice> choices;
  std::vector<bool> ended;  // of the choices

  explicit Job(GenerationService& used_service) : service(used_service) {}
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;
  ~Job() { abandon(); }

  /// Nobody waits for the answer any more: work that has not begun is skipped, a generation ends.
  void abandon() {
    abandoned->store(true);
    for (std::size_t i = 0; i < choices.size(); ++i) {
      if (!ended[i]) choices[i].stream->cancel();
    }
  }

  bool begun() const { return !choices.empty(); }
  bool finished() const { return begun() && std::ranges::count(ended, false) == 0; }

  /// A choice is over: its line in the log, and the metrics.
  void finish(std::size_t choice, const Finish& finish) {
    ended[choice] = true;
    service.finished("http", started->value(), choices[choice], finish);
  }
};

HttpSession::Awaitable<void> HttpSession::generate(OpenAiEndpoint endpoint) {
  const auto job = std::make_shared<Job>(*service_);
  co_await parse(job, endpoint);
  if (!job->parsed->ok()) {
    const Status status = job->parsed->status();
    service_->refused(status.code());
    co_await respond(http_status_of(status.code()), error_body(status));
    co_return;
  }

  const OpenAiRequest& request = job->parsed->value();
  job->names = request.names;
  job->streamed = request.stream;
  job->head.chat = endpoint != OpenAiEndpoint::completions;
  job->head.model = service_->model_name();
  job->head.include_usage = request.include_usage;
  job->head.logprobs = request.options().top_logprobs.has_value();
  job->head.n =
      static_cast<std::size_t>(std::max<std::int64_t>(request.options().n.value_or(1), 1));
  job->head.seed_is_negative = request.options().seed_is_negative;
  job->head.response_members = request.response_members;
  job->head.tokenizer = &service_->tokenizer();
  if (request.echo) {
    for (const Prompt& prompt : std::get<CompletionInput>(request.input).prompts) {
      job->head.echo.push_back(text_of(prompt, *job->head.tokenizer));
    }
  }

  const auto count = [](std::optional<std::int64_t> most) -> std::optional<std::size_t> {
    if (!most.has_value()) return std::nullopt;
    return static_cast<std::size_t>(*most);  // the service has refused what is negative
  };
  if (request.echo) job->head.echo_logprobs = count(request.options().top_logprobs);
  job->head.prompt_logprobs = count(request.prompt_logprobs);

  watch();
  std::exception_ptr failure;
  try {
    co_await run_job(job);
  } catch (...) {
    failure = std::current_exception();
  }
  // Whatever happened: the generation ends, and no read stays pending.
  job->abandon();
  co_await await_end(job);
  co_await stop_watching();
  if (failure) std::rethrow_exception(failure);
}

HttpSession::Awaitable<void> HttpSession::run_job(std::shared_ptr<Job> job) {
  co_await start(job);
  if (disconnected_) {
    // Nobody to answer.
  } else if (!job->started->ok()) {
    const Status status = with_names(job->started->status(), job->names);
    co_await respond(http_status_of(status.code()), error_body(status), retry_header(status));
  } else if (job->names.endpoint == OpenAiEndpoint::responses) {
    ResponsesWriter writer(job->head, job->streamed);
    if (job->streamed) {
      co_await stream_answer(job, writer);
    } else {
      co_await collect_answer(job, writer);
    }
  } else if (job->streamed) {
    StreamWriter writer(job->head);
    co_await stream_answer(job, writer);
  } else {
    AnswerWriter writer(job->head);
    co_await collect_answer(job, writer);
  }
  if (disconnected_) {
    keep_alive_ = false;
    if (!job->finished()) status_ = http_status_of(StatusCode::cancelled);
  }
}

/// Waits for the end of generations that nobody takes: they are logged like any other.
HttpSession::Awaitable<void> HttpSession::await_end(std::shared_ptr<Job> job) {
  if (!job->begun()) co_return;
  if (!job->finished()) listen(*job);
  while (!job->finished()) {
    for (std::size_t i = 0; i < job->choices.size(); ++i) {
      for (const Event& event : job->choices[i].stream->take()) {
        if (const auto* finish = std::get_if<Finish>(&event)) job->finish(i, *finish);
      }
    }
    if (!job->finished()) co_await wait(std::chrono::hours(1));
  }
  for (const Choice& choice : job->choices) choice.stream->on_events({});
}

HttpSession::Awaitable<void> HttpSession::parse(std::shared_ptr<Job> job, OpenAiEndpoint endpoint) {
  const auto parse_body = [endpoint](const std::string& body) -> StatusOr<OpenAiRequest> {
    try {
      return parse_request(endpoint, body);
    } catch (const std::bad_alloc&) {
      return Status(StatusCode::resource_exhausted, "the server has no memory for this request");
    }
  };
  if (request_.body().size() > kLargeBody) {
    auto body = std::make_shared<std::string>(std::move(request_.body()));
    // Gives its references away to the strand: a session must not be destroyed on another thread,
    // where what it belongs to may be gone already.
    const bool posted = context_->parsers.post(
        [self = shared_from_this(), job, body = std::move(body), parse_body]() mutable {
          auto parsed = std::make_shared<StatusOr<OpenAiRequest>>(parse_body(*body));
          body.reset();
          const auto executor = self->socket_.get_executor();
          asio::post(executor, [self = std::move(self), job = std::move(job), parsed] {
            job->parsed.emplace(std::move(*parsed));
            self->wake();
          });
        });
    if (posted) {
      while (!job->parsed.has_value()) co_await wait(std::chrono::hours(1));
    } else {
      job->parsed.emplace(Status(StatusCode::resource_exhausted, "too many large requests"));
    }
  } else {
    job->parsed.emplace(parse_body(request_.body()));
  }
  request_.body().clear();
  request_.body().shrink_to_fit();
  body_share_.reset();
}

/// Hands the request over and waits until the engine has taken or refused it.
HttpSession::Awaitable<void> HttpSession::start(std::shared_ptr<Job> job) {
  // The callback gives its references away to the strand: a session must not be destroyed on
  // another thread, where its io_context may be gone already.
  GenerationService::Started on_started = [self = shared_from_this(),
                                           job](StatusOr<Generation> result) mutable {
    auto shared = std::make_shared<StatusOr<Generation>>(std::move(result));
    const auto executor = self->socket_.get_executor();
    asio::post(executor, [self = std::move(self), job = std::move(job), shared] {
      job->started.emplace(std::move(*shared));
      if (job->started->ok()) {
        const Generation& generation = job->started->value();
        job->choices = generation.choices;
        job->ended.resize(job->choices.size());
        job->head.id = generation.id;
        job->head.created = generation.created;
        job->head.tool_names = generation.tool_names;
        job->head.parallel_tool_calls = generation.parallel_tool_calls;
        for (const Choice& choice : job->choices) job->head.seeds.push_back(choice.seed);
      }
      if (job->abandoned->load()) job->abandon();
      self->wake();
    });
  };
  OpenAiRequest request = std::move(job->parsed->value());
  request.options().caller = caller();
  service_->generate(std::move(request.input), job->abandoned, std::move(on_started));
  while (!job->started.has_value()) {
    co_await wait(std::chrono::hours(1));
    // Not yet begun work is skipped, and answers at once.
    if (disconnected_) job->abandoned->store(true);
  }
  listen(*job);
}

/// Lets the events of all choices wake this session.
void HttpSession::listen(const Job& job) {
  for (const Choice& choice : job.choices) {
    // Runs on the engine's thread: it only posts.
    choice.stream->on_events([weak = weak_from_this(), executor = socket_.get_executor()] {
      asio::post(executor, [weak] {
        if (const auto self = weak.lock()) self->wake();
      });
    });
  }
}

template <typename Writer>
HttpSession::Awaitable<void> HttpSession::stream_answer(std::shared_ptr<Job> job, Writer& writer) {
  // HTTP/1.0 knows no chunks: there the end of the connection ends the answer.
  const bool chunked = request_.version() >= 11;
  if (!chunked) keep_alive_ = false;
  status_ = 200;
  std::string out =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
      "X-Accel-Buffering: no\r\n";
  if (chunked) out += "Transfer-Encoding: chunked\r\n";
  out += keep_alive_ ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
  out += common_headers_ + "\r\n";

  std::string events = writer.begin();
  while (true) {
    for (std::size_t i = 0; i < job->choices.size(); ++i) {
      for (const Event& event : job->choices[i].stream->take()) {
        const auto* finish = std::get_if<Finish>(&event);
        if (finish != nullptr) job->finish(i, *finish);
        if (writer.ended()) continue;  // another choice has failed
        if (finish != nullptr) {
          events += writer.finish(i, with_names(*finish, job->names));
        } else if (const auto* progress = std::get_if<PrefillProgress>(&event)) {
          events += writer.progress(i, *progress);
        } else if (const auto* prompt = std::get_if<PromptTokens>(&event)) {
          if constexpr (requires { writer.prompt(i, *prompt); }) {
            events += writer.prompt(i, *prompt);
          }
        } else {
          events += writer.token(i, std::get<TokenDelta>(event));
        }
      }
    }
    if (!events.empty()) out += chunked ? chunk_of(events) : events;
    if (writer.ended() && chunked) out += "0\r\n\r\n";
    events.clear();
    if (!out.empty() && !co_await write(asio::buffer(out))) co_return;
    out.clear();
    if (writer.ended()) co_return;
    const bool woken =
        co_await wait(std::chrono::seconds(context_->options.keepalive_comment_seconds));
    if (disconnected_) co_return;
    if (!woken) events = kSseKeepAlive;
  }
}

template <typename Writer>
HttpSession::Awaitable<void> HttpSession::collect_answer(std::shared_ptr<Job> job, Writer& writer) {
  Status failure;
  while (true) {
    for (std::size_t i = 0; i < job->choices.size(); ++i) {
      for (const Event& event : job->choices[i].stream->take()) {
        if (const auto* delta = std::get_if<TokenDelta>(&event)) {
          writer.token(i, *delta);
        } else if (const auto* prompt = std::get_if<PromptTokens>(&event)) {
          if constexpr (requires { writer.prompt(i, *prompt); }) writer.prompt(i, *prompt);
        } else if (const auto* finish = std::get_if<Finish>(&event)) {
          job->finish(i, *finish);
          if (finish->reason != FinishReason::error) {
            writer.finish(i, *finish);
          } else if (failure.ok()) {
            failure = with_names(finish->status, job->names);
          }
        }
      }
    }
    if (job->finished() || !failure.ok()) break;
    co_await wait(std::chrono::hours(1));
    if (disconnected_) co_return;
  }
  if (failure.ok()) {
    co_await respond(200, writer.text());
  } else {
    co_await respond(http_status_of(failure.code()), error_body(failure));
  }
}

/// Waits for `wake`. False when the time ran out first.
HttpSession::Awaitable<bool> HttpSession::wait(Clock::duration timeout) {
  if (!awake_) {
    wake_timer_.expires_after(timeout);
    co_await wake_timer_.async_wait(asio::as_tuple(asio::use_awaitable));
  }
  co_return std::exchange(awake_, false);
}

void HttpSession::wake() {
  awake_ = true;
  wake_timer_.cancel();
}

/// Keeps a read pending, to learn that the client is gone. What it reads instead of an end is the
/// beginning of the next request and stays in the buffer.
void HttpSession::watch() {
  watch_wanted_ = true;
  if (watching_ || buffer_.size() >= kMaxPipelined) return;
  watching_ = true;
  socket_.async_read_some(
      buffer_.prepare(4096),
      asio::bind_cancellation_slot(
          stop_watch_.slot(),
          [self = shared_from_this()](const boost::system::error_code& error, std::size_t bytes) {
            self->watching_ = false;
            if (error) {
              if (error != asio::error::operation_aborted) self->disconnected_ = true;
              self->wake();
              return;
            }
            self->buffer_.commit(bytes);
            if (self->watch_wanted_) {
              self->watch();
            } else {
              self->wake();
            }
          }));
}

HttpSession::Awaitable<void> HttpSession::stop_watching() {
  watch_wanted_ = false;
  stop_watch_.emit(asio::cancellation_type::terminal);
  while (watching_) co_await wait(std::chrono::hours(1));
}

}  // namespace mobius
