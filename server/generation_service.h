#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "engine/engine.h"
#include "server/byte_budget.h"
#include "server/chat_template.h"
#include "server/generation_options.h"
#include "server/grammar_cache.h"
#include "server/metrics/generation_metrics.h"
#include "server/running_generations.h"
#include "server/tools/tools.h"
#include "server/worker_pool.h"

namespace mobius {

struct ChatInput {
  std::string model;                    ///< empty: the one that the server runs
  std::string id_prefix = "chatcmpl-";  ///< of the answer's id
  std::vector<ChatMessage> messages;
  std::vector<std::string> tools_json;  ///< a JSON object per tool
  ToolChoice tool_choice = {};
  bool parallel_tool_calls = true;
  GenerationOptions options;
};

/// Text gets a begin-of-text token; tokens are used as they are.
using Prompt = std::variant<std::string, std::vector<std::int32_t>>;

struct CompletionInput {
  std::string model;
  std::string id = {};  ///< the client's, of the answer and its first choice; empty: one is made
  std::vector<Prompt> prompts;
  GenerationOptions options;
};

using Input = std::variant<ChatInput, CompletionInput>;

/// Text that may be tokenized for those who want tokens and no answer: a megabyte takes some 30 ms
/// and 2 MB of memory, this bounds both.
inline constexpr std::size_t kMaxTokenizeBytes = std::size_t{8} << 20U;

/// Answers of one request, all its prompts together.
inline constexpr std::size_t kMaxChoices = 128;

/// One of a request's answers. The first one has the request's id and seed, the others their own.
struct Choice {
  std::string id;
  std::uint64_t seed = 0;
  std::shared_ptr<Stream> stream;
};

/// A request that the engine has accepted.
struct Generation {
  std::string id;
  std::int64_t created = 0;        ///< seconds since the epoch
  std::uint64_t seed = 0;          ///< the client's, or the one drawn for it
  std::int64_t prompt_tokens = 0;  ///< of all prompts
  Caller caller = {};
  std::vector<Choice> choices = {};  ///< `n` of the first prompt, then of the next
  /// Names of the tools that the answers may call; a front end parses them then.
  std::vector<std::string> tool_names = {};
  bool parallel_tool_calls = true;

  /// Of the first choice; nullptr before there are any.
  std::shared_ptr<Stream> stream() const {
    return choices.empty() ? nullptr : choices.front().stream;
  }
};

struct GenerationServiceOptions {
  std::string model_name;
  std::string model_path;       ///< for routers that read the tokenizer where the server does
  std::int32_t bos_token = -1;  ///< put before text prompts; -1: none
  std::vector<std::int32_t> end_tokens = {};  ///< the model's own, to be told
  AttentionSettings attention;                ///< defaults
  std::size_t tokenizer_threads = 1;
  std::size_t max_queued = 1024;  ///< requests that wait for a tokenizer thread
  std::size_t max_queued_bytes = std::size_t{256} << 20U;  ///< limit of `budget()`
};

/// The one place where requests of any protocol become engine requests: model name, template and
/// tokenization (on threads of its own, never on the caller's), option checks, defaults, ids and
/// seeds. Thread-safe.
class GenerationService {
 public:
  /// Called exactly once per request, on a tokenizer thread or inside the call that was refused.
  using Started = std::function<void(StatusOr<Generation>)>;
  /// Set to true by a caller whose client is gone: work that has not begun is skipped, and
  /// `Started` gets `cancelled`. May be null.
  using Abandoned = std::shared_ptr<const std::atomic<bool>>;

  /// `engine` must outlive this.
  GenerationService(GenerationServiceOptions options, Engine& engine,
                    std::shared_ptr<const Tokenizer> tokenizer);
  /// Finishes what is queued.
  ~GenerationService() = default;

  void generate(Input input, Abandoned abandoned, Started started);

  /// The prompt that a chat becomes. Takes as long as tokenization does.
  StatusOr<std::vector<std::int32_t>> prompt_of(const ChatInput& input) const;
  /// Not found, where a request names another model than this server's.
  Status check_model(const std::string& model) const;

  /// A front end's word that an answer is over: its line in the log, the metrics, and what its
  /// caller's account pays for. Once for each Choice. `protocol`: "http", "grpc".
  void finished(std::string_view protocol, const Generation& generation, const Choice& choice,
                const Finish& finish);
  /// Cancels the generation of that id, all its choices. Not found where no generation that this
  /// account began is under way.
  Status abort(const std::string& id, const KeyAccount* account) {
    return running_.abort(id, account);
  }
  /// A front end's word that it answered a request with an error before it came here.
  void refused(StatusCode code) { metrics_.refused(code); }
  const GenerationMetrics& metrics() const { return metrics_; }

  /// Refuses new requests with `unavailable` from now on; accepted ones go on.
  void drain() { draining_.store(true); }
  /// Healthy and not draining.
  bool ready() const;

  /// Bytes of inputs that wait to be tokenized. A front end counts bodies that it reads here too,
  /// until they have become an input.
  ByteBudget& budget() { return budget_; }
  std::size_t queued_bytes() const { return budget_.used(); }
  /// For a request that the budget has no room for.
  Status over_budget() const;

  /// Of requests that do not choose.
  const AttentionSettings& attention() const { return options_.attention; }
  const std::string& model_name() const { return options_.model_name; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  /// Put before text prompts; -1: none.
  std::int32_t bos_token() const { return options_.bos_token; }
  const std::string& model_path() const { return options_.model_path; }
  const std::vector<std::int32_t>& end_tokens() const { return options_.end_tokens; }
  const Engine& engine() const { return engine_; }

 private:
  StatusOr<Generation> start(const Input& input);
  Status use_tools(const ChatInput& input, GenerationRequest& request, Generation& generation);
  StatusOr<std::vector<std::int32_t>> prompt_of(const Prompt& prompt) const;
  Status submit(const std::vector<std::vector<std::int32_t>>& prompts, std::int64_t n,
                GenerationRequest request, Generation& generation);
  std::uint64_t next_random();

  GenerationServiceOptions options_;
  Engine& engine_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::atomic<std::uint64_t> random_state_;
  std::atomic<bool> draining_ = false;
  GenerationMetrics metrics_;
  GrammarCache grammars_;
  RunningGenerations running_;
  ByteBudget budget_;
  WorkerPool pool_;  // last: its threads use everything above
};

}  // namespace mobius
