#include "server/generation_service.h"

#include <chrono>
#include <cstdio>
#include <exception>
#include <new>
#include <random>
#include <utility>

#include "engine/mix.h"
#include "engine/validate.h"
#include "server/json.h"
#include "server/log.h"

namespace mobius {
namespace {

std::uint64_t random_start() {
  std::random_device device;
  return (std::uint64_t{device()} << 32U) | device();
}

// Inputs in memory: their own bytes and those of what they point to.

std::size_t bytes_of(const GenerationOptions& options) {
  std::size_t bytes = options.logit_bias.size() * sizeof options.logit_bias[0] +
                      options.stop_token_ids.size() * sizeof options.stop_token_ids[0];
  for (const std::string& stop : options.stop) bytes += sizeof stop + stop.size();
  return bytes + options.response_format.schema.size();
}

std::size_t bytes_of(const ChatInput& input) {
  std::size_t bytes = sizeof input + bytes_of(input.options);
  for (const ChatMessage& message : input.messages) {
    bytes += sizeof message + message.content.size() + message.tool_call_id.size();
    for (const ChatToolCall& call : message.tool_calls) {
      bytes += sizeof call + call.id.size() + call.name.size() + call.arguments.size();
    }
  }
  for (const std::string& tool : input.tools_json) bytes += sizeof tool + tool.size();
  return bytes;
}

std::size_t bytes_of(const CompletionInput& input) {
  std::size_t bytes = sizeof input + bytes_of(input.options);
  for (const Prompt& prompt : input.prompts) {
    const auto* text = std::get_if<std::string>(&prompt);
    bytes += sizeof prompt +
             (text != nullptr ? text->size() : std::get<1>(prompt).size() * sizeof(std::int32_t));
  }
  return bytes;
}

const GenerationOptions& options_of(const Input& input) {
  return std::visit([](const auto& in) -> const GenerationOptions& { return in.options; }, input);
}

/// The request's own for its first choice; 53 bits for the others (see `start`).
std::uint64_t seed_of_choice(std::uint64_t seed, std::size_t choice) {
  return choice == 0 ? seed : mix(seed + choice * 0x9e3779b97f4a7c15ULL) >> 11U;
}

std::string hex(std::uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

}  // namespace

GenerationService::GenerationService(GenerationServiceOptions options, Engine& engine,
                                     std::shared_ptr<const Tokenizer> tokenizer)
    : options_(std::move(options)),
      engine_(engine),
      tokenizer_(std::move(tokenizer)),
      random_state_(random_start()),
      grammars_(*tokenizer_),
      budget_(options_.max_queued_bytes),
      pool_(options_.tokenizer_threads, options_.max_queued) {}

StatusOr<std::vector<std::int32_t>> GenerationService::prompt_of(const ChatInput& input) const {
  ChatTemplateOptions form;
  form.max_context = engine_.model().limits.max_context;
  const bool with_tools = input.tool_choice.kind != ToolChoice::Kind::none;
  const auto tools =
      with_tools ? std::span<const std::string>(input.tools_json) : std::span<const std::string>();
  return render_chat(*tokenizer_, input.messages, tools, form);
}

StatusOr<std::vector<std::int32_t>> GenerationService::prompt_of(const Prompt& prompt) const {
  const auto* text = std::get_if<std::string>(&prompt);
  if (text == nullptr) return std::get<std::vector<std::int32_t>>(prompt);
  std::vector<std::int32_t> tokens;
  if (options_.bos_token >= 0) tokens.push_back(options_.bos_token);
  const std::int32_t context = engine_.model().limits.max_context;
  const auto most = static_cast<std::size_t>(context) - 1;
  const std::size_t length = tokenizer_->encode(*text, tokens, most);
  if (length > most) return prompt_too_long(length, false, context);
  return tokens;
}

Status GenerationService::check_model(const std::string& model) const {
  if (model.empty() || model == options_.model_name) return {};
  return {StatusCode::not_found,
          "model \"" + brief_text(model) + "\" does not exist; this server runs \"" +
              options_.model_name + "\"",
          "model"};
}

void GenerationService::finished(std::string_view protocol, const Generation& generation,
                                 const Choice& choice, const Finish& finish) {
  metrics_.finished(finish);
  running_.choice_ended(generation.id);
  const auto& [request, account, trace] = generation.caller;
  if (account != nullptr) account->spend(finish.usage.completion_tokens);
  log_event(LogLevel::info, "generation",
            {{"protocol", protocol},
             {"id", choice.id},
             {"request_id", request},
             {"key", account != nullptr ? std::string_view(account->name()) : std::string_view()},
             {"trace_id", unless_empty(trace.trace_id)},
             {"span_id", unless_empty(trace.span_id)},
             {"outcome", outcome_of(finish)},
             {"prompt_tokens", std::int64_t{finish.usage.prompt_tokens}},
             {"cached_tokens", std::int64_t{finish.usage.cached_tokens}},
             {"completion_tokens", std::int64_t{finish.usage.completion_tokens}},
             {"queued_ms", milliseconds(finish.timing.queued)},
             {"ttft_ms", milliseconds(finish.timing.first_token)},
             {"total_ms", milliseconds(finish.timing.total)}});
}

bool GenerationService::ready() const {
  return !draining_.load() && engine_.stats().healthy;
}

Status GenerationService::over_budget() const {
  return {StatusCode::resource_exhausted,
          "requests being read and prompts that wait to be tokenized hold " +
              std::to_string(budget_.used()) + " bytes; this one would exceed the limit of " +
              std::to_string(budget_.limit()) + " (server.max_queued_bytes); try again later"};
}

void GenerationService::generate(Input input, Abandoned abandoned, Started answer) {
  const Started started = [this, answer = std::move(answer)](StatusOr<Generation> result) {
    if (!result.ok()) metrics_.refused(result.status().code());
    answer(std::move(result));
  };
  if (draining_.load()) {
    started(Status(StatusCode::unavailable, "the server is shutting down"));
    return;
  }
  const std::string& model =
      std::visit([](const auto& in) -> const std::string& { return in.model; }, input);
  if (Status status = check_model(model); !status.ok()) {
    started(std::move(status));
    return;
  }
  // Given back with the work item, tokenized or not.
  const auto share = std::make_shared<ByteBudget::Share>(budget_);
  if (!share->resize(std::visit([](const auto& in) { return bytes_of(in); }, input))) {
    started(over_budget());
    return;
  }
  // The callback is kept outside the work item, which is lost when the queue refuses it.
  auto callback = std::make_shared<Started>(started);
  const bool queued = pool_.post([this, shared = std::make_shared<const Input>(std::move(input)),
                                  abandoned = std::move(abandoned), share, callback] {
    if (abandoned != nullptr && abandoned->load()) {
      (*callback)(Status(StatusCode::cancelled, "the client is gone"));
      return;
    }
    (*callback)(start(*shared));
  });
  if (!queued) {
    (*callback)(Status(StatusCode::resource_exhausted,
                       "more than " + std::to_string(options_.max_queued) +
                           " requests wait to be tokenized; try again later"));
  }
}

StatusOr<Generation> GenerationService::start(const Input& input) try {
  const GenerationOptions& options = options_of(input);
  const auto* chat = std::get_if<ChatInput>(&input);
  const auto* completion = std::get_if<CompletionInput>(&input);
  const std::size_t num_prompts = chat != nullptr ? 1 : completion->prompts.size();
  if (num_prompts < 1 || num_prompts > kMaxChoices) {
    return Status::invalid("prompt", "prompt has " + std::to_string(num_prompts) +
                                         " prompts, must have from 1 to " +
                                         std::to_string(kMaxChoices));
  }
  const std::int64_t n = options.n.value_or(1);
  if (const auto most = static_cast<std::int64_t>(kMaxChoices / num_prompts); n < 1 || n > most) {
    return Status::invalid(
        "n", "n is " + std::to_string(n) + ", must be from 1 to " + std::to_string(most) +
                 (num_prompts > 1 ? " for " + std::to_string(num_prompts) + " prompts" : ""));
  }

  if (const std::size_t answers = static_cast<std::size_t>(n) * num_prompts;
      options.routing && answers > 1) {
    return Status::invalid(
        "routing", "routing is set; it is told of one answer, not of " + std::to_string(answers));
  }

  // A text may be scored, or put into the cache, without an answer; a conversation has one.
  if (chat != nullptr) {
    Status status = check_integer("max_tokens", options.max_tokens.value_or(1), {.low = 1});
    if (!status.ok()) return status;
  }

  Generation generation;
  GenerationRequest request;
  if (Status status = resolve_options(options, options_.attention, engine_.model(), request);
      !status.ok()) {
    return status;
  }
  if (chat != nullptr) {
    if (Status status = use_tools(*chat, request, generation); !status.ok()) return status;
  } else {
    auto grammar = grammars_.get(options.response_format);
    if (!grammar.ok()) return grammar.status();
    request.grammar = std::move(grammar).value();
  }
  // The engine validates whole requests; a stand-in prompt lets it refuse bad options before a long
  // prompt costs its tokenization.
  const RunnerInfo& model = engine_.model();
  request.prompt = {0};
  if (Status status = validate(request, model, model.limits.max_context); !status.ok()) {
    return status;
  }
  std::vector<std::vector<std::int32_t>> prompts;
  for (std::size_t i = 0; i < num_prompts; ++i) {
    auto prompt = chat != nullptr ? prompt_of(*chat) : prompt_of(completion->prompts[i]);
    if (!prompt.ok()) return prompt.status();
    prompts.push_back(std::move(prompt).value());
  }

  for (const auto& prompt : prompts) generation.prompt_tokens += std::ssize(prompt);
  if (const std::int64_t scored = generation.prompt_tokens * n;
      options.prompt_logprobs.has_value() && scored > kMaxScoredTokens) {
    return Status::invalid("prompt", "prompt has " + std::to_string(scored) + " tokens" +
                                         (n > 1 || num_prompts > 1 ? " in all choices" : "") +
                                         ", must have at most " + std::to_string(kMaxScoredTokens) +
                                         " where its log-probabilities are asked for");
  }

  generation.id = (chat != nullptr ? chat->id_prefix : "cmpl-") + hex(next_random());
  if (completion != nullptr && !completion->id.empty()) generation.id = completion->id;
  // 53 bits: a client can send the seed back through any JSON library.
  generation.seed = options.seed.has_value() ? *options.seed : next_random() >> 11U;
  generation.created = std::chrono::duration_cast<std::chrono::seconds>(
                           std::chrono::system_clock::now().time_since_epoch())
                           .count();
  generation.caller = options.caller;
  KeyAccount* const account = options.caller.account.get();
  if (account != nullptr && !account->name().empty()) request.client = account->name();
  if (Status status = submit(prompts, n, std::move(request), generation); !status.ok()) {
    return status;
  }
  if (account != nullptr) account->spend(generation.prompt_tokens);
  std::vector<std::shared_ptr<Stream>> streams;
  for (const Choice& choice : generation.choices) streams.push_back(choice.stream);
  running_.add(generation.id, options.caller.account, std::move(streams));
  return generation;
} catch (const std::bad_alloc&) {
  return Status(StatusCode::resource_exhausted, "the server has no memory for this request");
} catch (const std::exception& error) {
  // What was thrown is for the log, not for clients.
  log_event(LogLevel::error, "request_failed", {{"error", error.what()}});
  return Status(StatusCode::internal, "the request could not be started");
}

/// Tools: the grammar of the answers, and the names of what they may call.
Status GenerationService::use_tools(const ChatInput& input, GenerationRequest& request,
                                    Generation& generation) {
  std::vector<Tool> tools;
  if (input.tool_choice.kind != ToolChoice::Kind::none) {
    StatusOr<std::vector<Tool>> read = read_tools(input.tools_json);
    if (!read.ok()) return read.status();
    tools = std::move(read).value();
  }
  for (const Tool& tool : tools) generation.tool_names.push_back(tool.name);
  generation.parallel_tool_calls = input.parallel_tool_calls;
  auto grammar = grammars_.get(std::move(tools), input.tool_choice, input.parallel_tool_calls,
                               input.options.response_format);
  if (!grammar.ok()) return grammar.status();
  request.grammar = std::move(grammar).value();
  return {};
}

/// All choices or none. Those of one prompt share what the first of them computes, in the prefix
/// cache.
Status GenerationService::submit(const std::vector<std::vector<std::int32_t>>& prompts,
                                 std::int64_t n, GenerationRequest request,
                                 Generation& generation) {
  for (const auto& prompt : prompts) {
    for (std::int64_t i = 0; i < n; ++i) {
      const std::size_t index = generation.choices.size();
      Choice choice;
      choice.id = index == 0 ? generation.id : generation.id + '-' + std::to_string(index);
      choice.seed = seed_of_choice(generation.seed, index);
      GenerationRequest own = request;
      own.id = choice.id;
      own.sampling.seed = choice.seed;
      own.prompt = prompt;
      StatusOr<std::shared_ptr<Stream>> stream = engine_.submit(std::move(own));
      if (!stream.ok()) {
        for (const Choice& other : generation.choices) other.stream->cancel();
        return stream.status();
      }
      choice.stream = std::move(stream).value();
      generation.choices.push_back(std::move(choice));
    }
  }
  return {};
}

std::uint64_t GenerationService::next_random() {
  return mix(random_state_.fetch_add(0x9e3779b97f4a7c15ULL));
}

}  // namespace mobius
