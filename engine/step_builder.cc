#include "engine/step_builder.h"

#include <cstddef>

namespace mobius {

StepBuilder::StepBuilder(std::int32_t max_rows, std::int32_t max_slices,
                         std::int32_t max_logit_rows, std::int32_t vocab_size)
    : vocab_size_(vocab_size) {
  tokens_.reserve(static_cast<std::size_t>(max_rows));
  slices_.reserve(static_cast<std::size_t>(max_slices));
  logit_rows_.reserve(static_cast<std::size_t>(max_logit_rows));
  samples_.reserve(static_cast<std::size_t>(max_logit_rows));
}

void StepBuilder::clear() {
  tokens_.clear();
  slices_.clear();
  logit_rows_.clear();
  samples_.clear();
  for (OnlyToken& mask : std::span(masks_).first(used_masks_)) {
    mask.words[static_cast<std::size_t>(mask.token / 32)] = 0;
  }
  used_masks_ = 0;
}

std::span<const std::uint32_t> StepBuilder::allow_only(std::int32_t token) {
  if (used_masks_ == masks_.size()) {
    masks_.push_back({std::vector<std::uint32_t>(static_cast<std::size_t>(vocab_size_ + 31) / 32)});
  }
  OnlyToken& mask = masks_[used_masks_++];
  mask.token = token;
  mask.words[static_cast<std::size_t>(token / 32)] = 1U << (token % 32);
  return mask.words;
}

void StepBuilder::add(const PlannedSlice& planned, Sequence& sequence) {
  const auto first_row = static_cast<std::int32_t>(tokens_.size());
  const auto rows = sequence.tokens().subspan(static_cast<std::size_t>(planned.first),
                                              static_cast<std::size_t>(planned.count));
  tokens_.insert(tokens_.end(), rows.begin(), rows.end());

  const AttentionSettings& attention = sequence.request().attention;
  SequenceSlice slice;
  slice.first_row = first_row;
  slice.num_rows = planned.count;
  slice.first_position = planned.first;
  slice.pages = planned.pages;
  slice.policy = planned.prompt ? attention.prefill : attention.decode;
  slice.full_attention_last_layers = attention.full_attention_last_layers;
  if (planned.samples) slice.attended = sequence.ask_routing();
  slices_.push_back(slice);

  const auto scored = sequence.scoring_rows(planned.first, planned.count);
  for (std::int32_t i = 0; i < scored.count; ++i) {
    const std::int32_t position = scored.first + i;
    const auto next = static_cast<std::size_t>(position) + 1;
    logit_rows_.push_back(first_row + position - planned.first);
    SampleRow row;
    row.params = &sequence.scoring();
    row.prompt = sequence.prompt().first(next);
    row.allowed = allow_only(sequence.prompt()[next]);
    samples_.push_back(row);
  }

  if (!planned.samples) return;
  logit_rows_.push_back(first_row + planned.count - 1);
  SampleRow sample;
  sample.params = &sequence.request().sampling;
  sample.prompt = sequence.prompt();
  sample.generated = sequence.generated();
  sample.allowed = sequence.allowed();
  samples_.push_back(sample);
}

}  // namespace mobius
