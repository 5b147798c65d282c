#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/status.h"
#include "kernels/attention.h"
#include "kernels/sampling.h"

namespace mobius {

class Grammar;
struct Routing;

/// Attention of one request; the server's default unless the request says otherwise. A prompt token
/// uses `prefill`, a generated one `decode`, for the request's whole life (also when it is
/// recomputed after preemption).
struct AttentionSettings {
  AttentionPolicy prefill;
  AttentionPolicy decode;
  std::int32_t full_attention_last_layers = 0;
};

/// A prompt in tokens and what is to be generated from it. Protocols end before this: no JSON, no
/// protobuf, no template.
struct GenerationRequest {
  std::string id;  ///< unique among unfinished requests unless empty; shown in logs and answers
  std::vector<std::int32_t> prompt;
  SamplingParams sampling;
  std::optional<std::int32_t> max_tokens;  ///< none: until the context is full; 0: no answer
  std::vector<std::string> stop;          ///< generation ends before the first of these in the text
  std::vector<std::int32_t> stop_tokens;  ///< beside the model's own end tokens
  bool ignore_eos = false;
  /// As SamplingParams::top_logprobs, for the tokens of the prompt: PromptTokens events. The whole
  /// prompt is computed then, and in smaller steps: nothing of it comes from the prefix cache.
  std::int32_t prompt_logprobs = -1;
  AttentionSettings attention;
  std::optional<std::chrono::steady_clock::time_point> deadline;
  std::chrono::milliseconds timeout{};  ///< what the deadline was made of, to be named; 0: unknown
  /// Only texts of this language are generated; the end of one that cannot go on ends the
  /// generation. Made for the engine's tokenizer. None: any text.
  std::shared_ptr<const Grammar> grammar;
  bool report_progress = false;  ///< prefill progress events
  bool report_routing = false;   ///< Finish::routing
  std::int32_t priority = 0;     ///< lower goes first
  std::string client;            ///< places are shared fairly among clients; empty is one too
};

enum class FinishReason : std::uint8_t {
  stop,    ///< an end token or a stop string
  length,  ///< max_tokens, or the context is full
  error,   ///< Finish::status says what: cancelled, deadline_exceeded, internal, …
};

/// For logs and answers.
inline double milliseconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

struct Usage {
  std::int32_t prompt_tokens = 0;
  std::int32_t cached_tokens = 0;  ///< of the prompt, never computed: from the prefix cache
  std::int32_t completion_tokens = 0;
};

/// Measured by the engine, from the request's arrival there.
struct Timing {
  std::chrono::nanoseconds queued{};       ///< until its first row was computed
  std::chrono::nanoseconds first_token{};  ///< TTFT
  std::chrono::nanoseconds total{};
};

// ---- what a request's stream carries, in order: PrefillProgress* and PromptTokens* as the prompt
// is computed, TokenDelta*, Finish ---------------------------------------------------------------

struct PrefillProgress {
  std::int32_t total = 0;   ///< prompt tokens
  std::int32_t cached = 0;  ///< of them from the prefix cache
  std::int32_t done = 0;    ///< of them in the KV cache by now, cached ones included
  double seconds_left = 0;  ///< for the others, at the pace of late
};

/// Consecutive tokens of the prompt with their log-probabilities, where those were asked for. All
/// of them come, in order. The prompt's first token has none.
struct PromptTokens {
  std::int32_t first = 0;  ///< position of the first one
  std::int32_t total = 0;  ///< prompt tokens
  std::vector<SampledToken> tokens;
};

/// One generated token. `text` is what became printable with it: valid UTF-8, empty while a
/// character or a possible stop string is incomplete.
struct TokenDelta {
  SampledToken token;
  std::string text;
};

/// Always the last event, exactly once.
struct Finish {
  FinishReason reason = FinishReason::stop;
  Status status;  ///< not OK exactly when reason == error
  std::string
      text;  ///< text held back until now (an incomplete character, an unfinished stop string)
  std::string stop_sequence;  ///< the stop string that ended it, if one did
  Usage usage;
  Timing timing;
  BlockReads prefill_reads;  ///< KV blocks read, all layers and heads; not by cached tokens
  BlockReads decode_reads;
  std::shared_ptr<const Routing> routing = {};  ///< where asked for (routing.h); not with an error
};

}  // namespace mobius
