#include "server/http/answer_json.h"

#include <algorithm>
#include <span>
#include <utility>

#include "server/http/routing_json.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

Json chat_logprob(const Tokenizer& tokenizer, std::int32_t token, float logprob) {
  const std::string_view bytes = tokenizer.bytes(token);
  Json numbers = Json::array();
  for (const char c : bytes) numbers.push_back(static_cast<unsigned char>(c));
  return {{"token", bytes}, {"logprob", logprob}, {"bytes", std::move(numbers)}};
}

Json block_reads(const BlockReads& reads) {
  return {{"read", reads.read}, {"total", reads.total}};
}

}  // namespace

std::string dump_answer(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json prompt_logprob(const Tokenizer& tokenizer, const SampledToken& scored, std::size_t most) {
  Json entry = Json::object();
  const auto add = [&](std::int32_t token, float logprob, Json rank) {
    Json& shown = entry[std::to_string(token)];
    if (!shown.is_null()) return;
    shown = {
        {"logprob", logprob}, {"rank", std::move(rank)}, {"decoded_token", tokenizer.bytes(token)}};
  };
  const auto top = std::span(scored.top).first(std::min(most, scored.top.size()));
  const auto own = std::ranges::find(top, scored.token, &TokenLogprob::token);
  // How many are likelier than one that is not among them is not known.
  add(scored.token, scored.logprob, own == top.end() ? Json() : Json(own - top.begin() + 1));
  for (std::size_t i = 0; i < top.size(); ++i) add(top[i].token, top[i].logprob, i + 1);
  return entry;
}

Json token_logprobs(const Tokenizer& tokenizer, const SampledToken& sampled) {
  Json entry = chat_logprob(tokenizer, sampled.token, sampled.logprob);
  Json top = Json::array();
  for (const TokenLogprob& other : sampled.top) {
    top.push_back(chat_logprob(tokenizer, other.token, other.logprob));
  }
  entry["top_logprobs"] = std::move(top);
  return entry;
}

Json seed_json(const AnswerHead& head, std::size_t choice) {
  const std::uint64_t seed = head.seeds[choice];
  if (choice == 0 && head.seed_is_negative) return static_cast<std::int64_t>(seed);
  return seed;
}

Json answer_extension(const AnswerHead& head, const AnswerTotal& total) {
  Json json = {{"seed", seed_json(head, 0)},
               {"queued_ms", milliseconds(total.timing.queued)},
               {"ttft_ms", milliseconds(total.timing.first_token)},
               {"total_ms", milliseconds(total.timing.total)},
               {"prefill_blocks", block_reads(total.prefill_reads)},
               {"decode_blocks", block_reads(total.decode_reads)}};
  if (total.routing != nullptr) json["routing"] = routing_json(*total.routing);
  return json;
}

}  // namespace mobius
