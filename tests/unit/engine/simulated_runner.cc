#include "tests/unit/engine/simulated_runner.h"

#include <set>
#include <stdexcept>

namespace mobius {
namespace {

// FNV-1a over 64-bit words, with a final mix (splitmix64) so that close inputs spread.
struct Hash {
  std::uint64_t state = 0xcbf29ce484222325ULL;
  void add(std::uint64_t word) { state = (state ^ word) * 0x100000001b3ULL; }
  void add_row(std::int32_t token, std::int32_t position, const AttentionPolicy& policy,
               std::int32_t last_layers) {
    add(static_cast<std::uint64_t>(token));
    add(static_cast<std::uint64_t>(position));
    add(static_cast<std::uint64_t>(policy.mode));
    add(static_cast<std::uint64_t>(policy.block));
    add(static_cast<std::uint64_t>(policy.top_k));
    add(static_cast<std::uint64_t>(last_layers));
  }
  std::uint64_t value() const {
    std::uint64_t x = state;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
  }
};

void require(bool condition, const std::string& what) {
  if (!condition) throw std::logic_error("the batch is wrong: " + what);
}

float simulated_logprob(const Hash& hash) {
  return -static_cast<float>(hash.value() % 1000) / 100;
}

std::int32_t draw(Hash hash, std::uint64_t seed, std::size_t index, std::int32_t vocab_size) {
  hash.add(seed);
  hash.add(index);
  return static_cast<std::int32_t>(hash.value() % static_cast<std::uint64_t>(vocab_size));
}

}  // namespace

RunnerInfo simulated_model(std::int32_t num_pages) {
  RunnerInfo info;
  info.device = "simulated";
  info.num_layers = 4;
  info.num_heads = 2;
  info.num_kv_heads = 1;
  info.vocab_size = 256;
  info.page_tokens = 4;
  info.num_pages = num_pages;
  info.limits = {64, 16, 4 * num_pages};
  return info;
}

SimulatedRunner::SimulatedRunner(const RunnerInfo& info)
    : info_(info), slots_(static_cast<std::size_t>(info.num_pages * info.page_tokens)) {}

const SimulatedRunner::Slot& SimulatedRunner::slot(const SequenceSlice& slice,
                                                   std::int32_t position) const {
  const PageId page = slice.pages[static_cast<std::size_t>(position / info_.page_tokens)];
  return slots_[static_cast<std::size_t>(page * info_.page_tokens + position % info_.page_tokens)];
}

SimulatedRunner::Slot& SimulatedRunner::slot(const SequenceSlice& slice, std::int32_t position) {
  return const_cast<Slot&>(std::as_const(*this).slot(slice, position));
}

void SimulatedRunner::check(const StepBatch& batch) const {
  const StepView& view = batch.view;
  require(!view.tokens.empty(), "rows");
  require(view.tokens.size() <= static_cast<std::size_t>(info_.limits.max_rows), "too many rows");
  require(view.slices.size() <= static_cast<std::size_t>(info_.limits.max_sequences),
          "too many slices");
  std::int32_t row = 0;
  std::set<PageId> written;
  for (const SequenceSlice& slice : view.slices) {
    require(slice.first_row == row && slice.num_rows > 0, "slices do not follow each other");
    const std::int32_t end = slice.first_position + slice.num_rows;
    require(end <= info_.limits.max_context, "past the context");
    require(slice.pages.size() * static_cast<std::size_t>(info_.page_tokens) >=
                static_cast<std::size_t>(end),
            "pages do not cover the rows");
    for (const PageId page : slice.pages) {
      require(page >= 0 && page < info_.num_pages, "page id");
    }
    for (std::int32_t i = 0; i < slice.num_rows; ++i) {
      const auto index = static_cast<std::size_t>(row + i);
      require(view.tokens[index] >= 0 && view.tokens[index] < info_.vocab_size, "token id");
    }
    for (std::int32_t i = slice.first_position / info_.page_tokens; i * info_.page_tokens < end;
         ++i) {
      require(written.insert(slice.pages[static_cast<std::size_t>(i)]).second,
              "two slices write one page");
    }
    for (std::int32_t position = 0; position < slice.first_position; ++position) {
      require(slot(slice, position).position == position, "earlier rows are not in the cache");
    }
    row += slice.num_rows;
  }
  for (const SequenceSlice& slice : view.slices) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(slice.first_position / info_.page_tokens);
         ++i) {
      require(!written.contains(slice.pages[i]), "a page is written while another slice reads it");
    }
  }
  require(static_cast<std::size_t>(row) == view.tokens.size(), "rows outside slices");
  require(view.logit_rows.size() == batch.samples.size(), "samples and logit rows differ");
  require(view.logit_rows.size() <= static_cast<std::size_t>(info_.limits.max_sequences),
          "too many logit rows");
  std::int32_t previous = -1;
  for (const std::int32_t logit_row : view.logit_rows) {
    require(logit_row > previous && logit_row < row, "logit rows are not in order");
    previous = logit_row;
  }
  for (const SampleRow& sample : batch.samples) {
    require(sample.params != nullptr, "no sampling parameters");
  }
}

void SimulatedRunner::write(const StepView& view, const SequenceSlice& slice) {
  for (std::int32_t i = 0; i < slice.num_rows; ++i) {
    slot(slice, slice.first_position + i) = {
        view.tokens[static_cast<std::size_t>(slice.first_row + i)], slice.first_position + i,
        slice.policy, slice.full_attention_last_layers};
  }
}

SampledToken SimulatedRunner::sample(const StepView& view, std::int32_t logit_row,
                                     const SampleRow& row) const {
  for (const SequenceSlice& slice : view.slices) {
    if (logit_row < slice.first_row || logit_row >= slice.first_row + slice.num_rows) continue;
    const std::int32_t end = slice.first_position + logit_row - slice.first_row + 1;
    require(row.prompt.size() + row.generated.size() == static_cast<std::size_t>(end),
            "the sampled row does not know its tokens");
    Hash hash;
    for (std::int32_t position = 0; position < end; ++position) {
      const Slot& read = slot(slice, position);
      hash.add_row(read.token, read.position, read.policy, read.last_layers);
    }
    SampledToken token;
    const auto script = scripts.find(row.params->seed);
    if (script != scripts.end() && row.generated.size() < script->second.size()) {
      token.token = script->second[row.generated.size()];
    } else {
      token.token = draw(hash, row.params->seed, row.generated.size(), info_.vocab_size);
    }
    const auto allowed = [&row](std::int32_t id) {
      return (row.allowed[static_cast<std::size_t>(id) / 32] >> (id % 32) & 1U) != 0;
    };
    if (!row.allowed.empty()) {
      const std::int32_t drawn = token.token;
      while (!allowed(token.token)) {
        token.token = (token.token + 1) % info_.vocab_size;
        require(token.token != drawn, "no token is allowed");
      }
    }
    // Tells rows apart: what the pages held decides.
    if (row.params->top_logprobs >= 0) token.logprob = simulated_logprob(hash);
    for (std::int32_t i = 0; i < row.params->top_logprobs; ++i) {
      token.top.push_back({i, -static_cast<float>(i + 1)});
    }
    return token;
  }
  throw std::logic_error("the batch is wrong: sampled row outside slices");
}

void SimulatedRunner::submit(const StepBatch& batch) {
  check(batch);
  if (on_step) on_step(batch);
  for (const SequenceSlice& slice : batch.view.slices) write(batch.view, slice);
  result_.clear();
  for (std::size_t i = 0; i < batch.samples.size(); ++i) {
    result_.push_back(sample(batch.view, batch.view.logit_rows[i], batch.samples[i]));
  }
}

std::span<const SampledToken> SimulatedRunner::wait() {
  if (on_result) on_result(result_);
  return result_;
}

std::vector<std::int32_t> expected_tokens(const GenerationRequest& request, const RunnerInfo& model,
                                          std::size_t count) {
  const AttentionSettings& attention = request.attention;
  Hash hash;
  std::int32_t position = 0;
  for (const std::int32_t token : request.prompt) {
    hash.add_row(token, position++, attention.prefill, attention.full_attention_last_layers);
  }
  std::vector<std::int32_t> tokens;
  while (tokens.size() < count) {
    tokens.push_back(draw(hash, request.sampling.seed, tokens.size(), model.vocab_size));
    hash.add_row(tokens.back(), position++, attention.decode, attention.full_attention_last_layers);
  }
  return tokens;
}

std::vector<float> expected_prompt_logprobs(const GenerationRequest& request) {
  const AttentionSettings& attention = request.attention;
  Hash hash;
  std::int32_t position = 0;
  std::vector<float> logprobs;
  for (const std::int32_t token : request.prompt) {
    if (position > 0) logprobs.push_back(simulated_logprob(hash));
    hash.add_row(token, position++, attention.prefill, attention.full_attention_last_layers);
  }
  return logprobs;
}

}  // namespace mobius
