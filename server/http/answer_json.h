#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "server/http/answer.h"

namespace mobius {

// Parts of answers as JSON.

/// A token's bytes need not be valid UTF-8; where they are shown as text, U+FFFD stands in.
std::string dump_answer(const nlohmann::ordered_json& value);

/// An element of vLLM's `prompt_logprobs`: the token and its `most` likeliest alternatives, by id.
nlohmann::ordered_json prompt_logprob(const Tokenizer& tokenizer, const SampledToken& scored,
                                      std::size_t most);

/// An element of `logprobs.content`.
nlohmann::ordered_json token_logprobs(const Tokenizer& tokenizer, const SampledToken& sampled);

/// A choice's seed as the client would write it.
nlohmann::ordered_json seed_json(const AnswerHead& head, std::size_t choice);

/// The extension object of a finished answer.
nlohmann::ordered_json answer_extension(const AnswerHead& head, const AnswerTotal& total);

}  // namespace mobius
