#include "server/http/answer_json.h"

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
