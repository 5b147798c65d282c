#include "engine/sequence.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace mobius {
namespace {

std::size_t most_tokens(const GenerationRequest& request, std::size_t prompt_tokens,
                        std::int32_t max_context) {
  const std::size_t room = static_cast<std::size_t>(max_context) - prompt_tokens;
  if (!request.max_tokens) return room;
  return std::min(room, static_cast<std::size_t>(*request.max_tokens));
}

}  // namespace

Sequence::Sequence(Submission submission, const Tokenizer& tokenizer, const RunnerInfo& model,
                   std::int32_t max_context)
    : request_(std::move(submission.request)),
      stream_(std::move(submission.stream)),
      model_(&model),
      tokenizer_(&tokenizer),
      tokens_(std::move(request_.prompt)),
      prompt_tokens_(tokens_.size()),
      max_tokens_(most_tokens(request_, prompt_tokens_, max_context)),
      detokenizer_(tokenizer),
      stops_(request_.stop),
      arrival_(submission.arrival) {
  scoring_.temperature = 0;
  scoring_.top_logprobs = request_.prompt_logprobs;
  if (request_.report_routing) routing_.emplace(request_.attention, model);
  if (request_.grammar == nullptr) return;
  matcher_.emplace(request_.grammar);
  const std::int32_t tokens_in_mask = std::max(model.vocab_size, tokenizer.vocab_size());
  mask_.resize((static_cast<std::size_t>(tokens_in_mask) + 31) / 32);
}

Status Sequence::interruption(TimePoint now) const {
  if (stream_->cancelled()) return {StatusCode::cancelled, "the request was cancelled"};
  if (!request_.deadline || now < *request_.deadline) return {};
  std::string where = "while it was queued";
  if (started_) {
    where = "after " + std::to_string(computed_) + " of " + std::to_string(prompt_tokens_) +
            " prompt tokens";
  }
  if (first_token_) {
    where = "after " + std::to_string(generated().size()) + " generated tokens";
  }
  std::string message = "deadline passed " + where;
  if (const auto limit = request_.timeout.count(); limit > 0) {
    message = "deadline is " + std::to_string(limit) + " ms; it passed " + where;
  }
  return {StatusCode::deadline_exceeded, std::move(message), "deadline"};
}

void Sequence::on_step(TimePoint now) {
  if (started_) return;
  started_ = now;
  last_rows_ = now;
}

std::int32_t Sequence::on_computed(std::int32_t first, std::int32_t count, TimePoint now) {
  const std::chrono::duration<double> pace = (now - last_rows_) / count;
  pace_ = pace_.count() == 0 ? pace : (3 * pace_ + pace) / 4;
  last_rows_ = now;
  if (first + count <= computed_) return 0;  // again, after a preemption

  const auto prompt = static_cast<std::int32_t>(prompt_tokens_);
  // Rows that were skipped were found. Only prompts are: what one generates is its own.
  const std::int32_t found = std::max(std::min(first, prompt) - computed_, 0);
  if (found > 0) {
    cached_ += found;
    cached_reads_ += count_reads(request_.attention.prefill, computed_, found);
  }
  computed_ = first + count;
  if (request_.report_progress && computed_ <= prompt) {
    stream_->push(
        PrefillProgress{prompt, cached_, computed_, (prompt - computed_) * pace_.count()});
  }
  return found;
}

Sequence::Rows Sequence::scoring_rows(std::int32_t first, std::int32_t count) const {
  if (request_.prompt_logprobs < 0) return {};
  const auto prompt = static_cast<std::int32_t>(prompt_tokens_);
  // Rows that are computed again, after a preemption, have been scored.
  const std::int32_t begin = std::max(first, static_cast<std::int32_t>(scored_) - 1);
  const std::int32_t end = std::min(first + count, prompt - 1);
  return {begin, std::max(end - begin, 0)};
}

void Sequence::on_scored(std::span<const SampledToken> tokens) {
  if (request_.prompt_logprobs < 0 || scored_ == prompt_tokens_) return;
  PromptTokens scored;
  scored.first = static_cast<std::int32_t>(scored_);
  scored.total = static_cast<std::int32_t>(prompt_tokens_);
  if (scored_ == 0) scored.tokens.push_back({.token = tokens_[0], .logprob = 0, .top = {}});
  scored.tokens.insert(scored.tokens.end(), tokens.begin(), tokens.end());
  for (const SampledToken& token : scored.tokens) {
    if (token.token == tokens_[scored_++]) continue;
    throw std::runtime_error("the model returned token " + std::to_string(token.token) +
                             ", which the mask of its row excludes");
  }
  if (!scored.tokens.empty()) stream_->push(std::move(scored));
}

void Sequence::update_mask(std::span<const std::int32_t> end_tokens) {
  if (!matcher_) return;
  matcher_->fill_mask(mask_);
  if (!matcher_->can_end()) return;
  for (const std::int32_t id : end_tokens) {
    const auto i = static_cast<std::size_t>(id);
    if (i / 32 < mask_.size()) mask_[i / 32] |= 1U << (i % 32);
  }
}

std::span<std::int32_t> Sequence::ask_routing() {
  if (!routing_) return {};
  const AttentionSettings& attention = request_.attention;
  return routing_->ask(generated().empty() ? attention.prefill : attention.decode,
                       static_cast<std::int32_t>(tokens_.size()) - 1);
}

bool Sequence::accept(SampledToken token, std::span<const std::int32_t> end_tokens, TimePoint now) {
  hand_out();
  const std::int32_t id = token.token;
  if (routing_) routing_->count();
  tokens_.push_back(id);
  if (!first_token_) first_token_ = now;
  last_token_ = now;

  const bool ends = (!request_.ignore_eos && std::ranges::count(end_tokens, id) > 0) ||
                    std::ranges::count(request_.stop_tokens, id) > 0;
  if (matcher_ && !ends && !matcher_->accept(id)) {
    throw std::runtime_error("the model returned token " + std::to_string(id) +
                             ", which the mask of its row excludes");
  }
  // An end token prints nothing, even where the request made an ordinary token one.
  std::string text = ends ? std::string() : stops_.push(detokenizer_.push(id));
  held_ = TokenDelta{std::move(token), std::move(text)};

  if (ends || stops_.stopped() || (matcher_ && matcher_->must_end())) {
    reason_ = FinishReason::stop;
    return true;
  }
  return generated().size() >= max_tokens_;
}

void Sequence::hand_out() {
  if (held_) stream_->push(*std::exchange(held_, {}));
}

std::optional<std::chrono::nanoseconds> Sequence::since_last_token(TimePoint now) const {
  if (!first_token_) return {};
  return now - last_token_;
}

Finish Sequence::finish(const Status& error, TimePoint now) {
  hand_out();
  Finish finish;
  finish.text = stops_.push(detokenizer_.finish());
  finish.text += stops_.finish();
  if (error.ok() && stops_.stopped()) {
    reason_ = FinishReason::stop;
    finish.stop_sequence = stops_.stop();
  }
  finish.reason = error.ok() ? reason_ : FinishReason::error;
  finish.status = error;
  finish.usage.prompt_tokens = static_cast<std::int32_t>(prompt_tokens_);
  finish.usage.cached_tokens = cached_;
  finish.usage.completion_tokens = static_cast<std::int32_t>(generated().size());
  finish.timing.total = now - arrival_;
  finish.timing.queued = started_.value_or(now) - arrival_;
  if (first_token_) finish.timing.first_token = *first_token_ - arrival_;
  const auto prompt = static_cast<std::int64_t>(prompt_tokens_);
  const std::int64_t prefilled = std::min<std::int64_t>(computed_, prompt);
  finish.prefill_reads = count_reads(request_.attention.prefill, 0, prefilled);
  finish.prefill_reads.read -= cached_reads_.read;
  finish.prefill_reads.total -= cached_reads_.total;
  finish.decode_reads =
      count_reads(request_.attention.decode, prompt, std::int64_t{computed_} - prefilled);
  if (routing_ && error.ok()) {
    finish.routing = std::make_shared<const Routing>(routing_->result(tokens_, *tokenizer_));
  }
  return finish;
}

BlockReads Sequence::count_reads(const AttentionPolicy& policy, std::int64_t first,
                                 std::int64_t count) const {
  // Where nothing is sparse there is still something to count in: the blocks that the request's
  // other phase uses, else pages.
  const AttentionSettings& attention = request_.attention;
  std::int32_t unit = model_->page_tokens;
  for (const AttentionPolicy* candidate : {&attention.decode, &attention.prefill, &policy}) {
    if (candidate->mode == AttentionMode::moba) unit = candidate->block;
  }
  const auto per_layer = [&](const AttentionPolicy& used, std::int64_t layers) {
    BlockReads reads = count_block_reads(used, first, count, unit);
    reads.read *= layers * model_->num_heads;
    reads.total *= layers * model_->num_heads;
    return reads;
  };
  const std::int64_t last = attention.full_attention_last_layers;
  BlockReads reads = per_layer(policy, model_->num_layers - last);
  reads += per_layer(AttentionPolicy::full(), last);
  return reads;
}

}  // namespace mobius
