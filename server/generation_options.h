#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/request.h"
#include "models/runner.h"
#include "server/security/key_account.h"
#include "server/security/trace_context.h"

namespace mobius {

/// Overrides of one attention policy, field by field.
struct PolicyOverride {
  std::optional<AttentionMode> mode;
  std::optional<std::int64_t> block;
  std::optional<std::int64_t> top_k;
};

struct AttentionOverride {
  PolicyOverride prefill;
  PolicyOverride decode;
  std::optional<std::int64_t> full_attention_last_layers;
};

/// What an answer must be. Its end is the end of the generation.
struct ResponseFormat {
  enum class Kind : std::uint8_t { text, json_object, json_schema };
  Kind kind = Kind::text;
  std::string schema;  ///< json_schema: JSON; what it may say is in engine/grammar/README.md
};

/// Whose request it is: the front end says so, not the client's message.
struct Caller {
  std::string request_id;               ///< for the log
  std::shared_ptr<KeyAccount> account;  ///< pays for the tokens; may be null
  TraceContext trace = {};              ///< for the log
};

/// What a client may say about a generation, whatever the protocol. Numbers are as wide as a
/// protocol can carry, so that an absurd one is refused by its value and not cut silently.
struct GenerationOptions {
  std::optional<std::int64_t> n;  ///< answers for each prompt
  std::optional<std::int64_t> max_tokens;
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<std::int64_t> top_k;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::optional<double> presence_penalty;
  std::optional<double> frequency_penalty;
  std::optional<std::uint64_t> seed;
  bool seed_is_negative = false;  ///< the client's was: these are its bits
  std::vector<std::pair<std::int64_t, double>> logit_bias;
  std::vector<std::string> stop;
  std::vector<std::int64_t> stop_token_ids;
  bool ignore_eos = false;
  std::optional<std::int64_t> top_logprobs;     ///< none: no logprobs
  std::optional<std::int64_t> prompt_logprobs;  ///< of the prompt's tokens, likewise
  ResponseFormat response_format;
  AttentionOverride attention;
  bool progress = false;
  bool routing = false;                  ///< Finish::routing; of one answer only
  std::optional<std::int64_t> priority;  ///< lower goes first
  /// Whom places are shared fairly among; where requests need keys, these are, and not users.
  std::string user;
  std::optional<std::chrono::steady_clock::time_point> deadline;
  std::chrono::milliseconds timeout{};  ///< what the client said, where it gave a deadline
  Caller caller;
};

/// Fills the request's fields other than id, prompt, seed and grammar; `defaults` is the server's
/// attention. Refuses what a GenerationRequest cannot carry, in the words of the engine's
/// `validate`, which says whether the rest is sensible.
Status resolve_options(const GenerationOptions& options, const AttentionSettings& defaults,
                       const RunnerInfo& model, GenerationRequest& request);

}  // namespace mobius
