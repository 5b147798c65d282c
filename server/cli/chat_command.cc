#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <chrono>
#include <csignal>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "server/cli/chat_screen.h"
#include "server/cli/client_options.h"
#include "server/cli/commands.h"
#include "server/cli/event_stream.h"
#include "server/cli/text_file.h"

namespace mobius {
namespace {

namespace asio = boost::asio;
using Json = nlohmann::ordered_json;

/// Exit code of a process that Ctrl-C ended, as shells have it.
constexpr int kInterrupted = 130;

struct ChatOptions {
  ClientOptions client;
  std::vector<std::string> files;
  std::string system;
  std::string question;
  std::int64_t max_tokens = 0;
  double temperature = -1;
  std::int64_t seed = -1;
  std::string prefill;
  std::string decode;
};

/// "full" or "moba:BLOCK/K" as the extension's object.
Json policy(const std::string& option, const std::string& text) {
  if (text == "full") return {{"mode", "full"}};
  long long block = 0;
  long long top_k = 0;
  int end = 0;
  if (std::sscanf(text.c_str(), "moba:%lld/%lld%n", &block, &top_k, &end) == 2 &&
      static_cast<std::size_t>(end) == text.size()) {
    return {{"mode", "moba"}, {"block", block}, {"top_k", top_k}};
  }
  throw std::runtime_error(option + ": \"" + text +
                           "\" must be full or moba:BLOCK/K, moba:512/8 say");
}

class Chat {
 public:
  Chat(const ChatOptions& options, ChatScreen& screen)
      : screen_(screen), client_(context_, options.client.api()) {
    ModelEntry model;
    run([&]() -> asio::awaitable<void> {
      model = co_await find_model(client_, options.client.model);
    });
    base_ = {{"model", model.id}, {"stream", true}, {"stream_options", {{"include_usage", true}}}};
    if (options.max_tokens > 0) base_["max_tokens"] = options.max_tokens;
    if (options.temperature >= 0) base_["temperature"] = options.temperature;
    if (options.seed >= 0) base_["seed"] = options.seed;
    // Other servers may refuse members that they do not know.
    if (model.mobius) base_["mobius"]["progress"] = true;
    if (!options.prefill.empty()) base_["mobius"]["prefill"] = policy("--prefill", options.prefill);
    if (!options.decode.empty()) base_["mobius"]["decode"] = policy("--decode", options.decode);
    system_ = options.system;
    reset();
    for (const std::string& file : options.files) attach(file);
  }

  void reset() {
    messages_ = Json::array();
    if (!system_.empty()) messages_.push_back({{"role", "system"}, {"content", system_}});
    document_.clear();
  }

  /// A document goes before the next question.
  void attach(const std::string& file) {
    std::string text = read_text(file);
    while (text.ends_with('\n')) text.pop_back();
    document_ += text + "\n\n";
  }

  const std::string& model() const { return base_["model"].get_ref<const std::string&>(); }

  /// Asks and shows the answer. What was asked and answered becomes part of the conversation, cut
  /// short or not; nothing does when the server refuses. Returns an exit code.
  int ask(const std::string& question) {
    messages_.push_back({{"role", "user"}, {"content", document_ + question}});
    Json body = base_;
    body["messages"] = messages_;
    AnswerSummary summary;
    std::string answer;
    std::string error;
    bool whole = false;
    const bool stopped = run([&]() -> asio::awaitable<void> {
      const auto on_event = [&](std::string_view data) {
        const AnswerEvent event = read_answer_event(data);
        whole = whole || event.done;
        if (!event.error.empty()) error = event.error;
        if (event.progress)
          screen_.progress(event.progress->done, event.progress->total,
                           event.progress->seconds_left);
        if (!event.text.empty()) {
          summary.text_arrived();
          answer += event.text;
          screen_.text(event.text);
        }
        if (event.usage) summary.usage = event.usage;
        if (event.prefill_share >= 0) summary.prefill_share = event.prefill_share;
        if (event.decode_share >= 0) summary.decode_share = event.decode_share;
      };
      EventStream events;
      const ApiReply reply = co_await client_.send(
          "/v1/chat/completions", body.dump(-1, ' ', false, Json::error_handler_t::replace),
          [&](std::string_view piece) { events.feed(piece, on_event); });
      if (error.empty()) error = reply.error;
      if (error.empty() && !whole) error = "the answer broke off before its end";
    });
    screen_.end_of_answer(stopped);
    if (stopped || error.empty()) {
      messages_.push_back({{"role", "assistant"}, {"content", answer}});
      document_.clear();
      if (!stopped) screen_.summary(summary);
      return stopped ? kInterrupted : 0;
    }
    messages_.erase(messages_.size() - 1);
    screen_.error(error);
    return 1;
  }

 private:
  /// Runs until the coroutine ends. True if Ctrl-C broke off its request. Rethrows what it throws.
  template <typename Coroutine>
  bool run(Coroutine coroutine) {
    bool stopped = false;
    asio::signal_set interrupt(context_, SIGINT);
    interrupt.async_wait([&](const boost::system::error_code& failure, int) {
      if (failure) return;
      stopped = true;
      client_.abort();
    });
    std::exception_ptr failure;
    asio::co_spawn(context_, std::move(coroutine), [&](std::exception_ptr thrown) {
      failure = std::move(thrown);
      interrupt.cancel();
    });
    context_.restart();
    context_.run();
    if (failure && !stopped) std::rethrow_exception(failure);
    return stopped;
  }

  ChatScreen& screen_;
  asio::io_context context_{1};
  ApiClient client_;
  Json base_;
  std::string system_;
  std::string document_;
  Json messages_;
};

constexpr std::string_view kHelp =
    "/file PATH  put a document before the next question\n"
    "/reset      forget the conversation\n"
    "/help       this text\n"
    "/quit       end; Ctrl-D does the same. Ctrl-C stops an answer.\n";

/// What a line that begins with a slash asks for. False: the conversation ends.
bool obey(const std::string& line, Chat& chat, ChatScreen& screen) {
  if (line == "/quit" || line == "/exit") return false;
  if (line == "/reset") {
    chat.reset();
  } else if (line.starts_with("/file ")) {
    try {
      chat.attach(line.substr(6));
    } catch (const std::runtime_error& error) {
      screen.error(error.what());
    }
  } else {
    screen.note(kHelp);
  }
  return true;
}

}  // namespace

int chat_command(std::span<const char* const> arguments) {
  CLI::App app("Talks to a server of OpenAI's API: one question, or a conversation, a line each.");
  app.name("mobius chat");
  ChatOptions options;
  options.client.add_to(app);
  app.add_option("--file,-f", options.files,
                 "A document to put before the first question; may repeat")
      ->allow_extra_args(false);
  app.add_option("--system", options.system, "System message");
  app.add_option("--max-tokens", options.max_tokens, "Longest answer; default: the server's")
      ->check(CLI::Range(1, 1 << 30));
  app.add_option("--temperature", options.temperature, "0: always the likeliest token")
      ->check(number_in(0.0, 2.0));
  app.add_option("--seed", options.seed, "The same seed gives the same answer")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--prefill", options.prefill,
                 "Mobius: attention of the prompt, full or moba:BLOCK/K");
  app.add_option("--decode", options.decode, "Mobius: attention of the answer, likewise");
  app.add_option("QUESTION", options.question, "Ask this and end; default: read questions");
  if (const auto code = parse_arguments(app, arguments)) return *code;

  std::signal(SIGPIPE, SIG_IGN);
  ChatScreen screen(isatty(STDOUT_FILENO) == 1, isatty(STDERR_FILENO) == 1);
  Chat chat(options, screen);
  if (!options.question.empty()) return chat.ask(options.question);

  const bool interactive = isatty(STDIN_FILENO) == 1;
  if (interactive) screen.note("Model " + chat.model() + ". /help says what else there is.\n");
  int code = 0;
  std::string line;
  while (true) {
    if (interactive) screen.note("> ");
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    if (line.starts_with('/')) {
      if (!obey(line, chat, screen)) break;
    } else {
      code = chat.ask(line);
      // A script's questions go on only while they are answered.
      if (!interactive && code != 0) break;
    }
  }
  return interactive ? 0 : code;
}

}  // namespace mobius
