#include "engine/step_builder.h"

#include <cstddef>

namespace mobius {

StepBuilder::StepBuilder(std::int32_t max_rows, std::int32_t max_slices) {
  tokens_.reserve(static_cast<std::size_t>(max_rows));
  slices_.reserve(static_cast<std::size_t>(max_slices));
  logit_rows_.reserve(static_cast<std::size_t>(max_slices));
  samples_.reserve(static_cast<std::size_t>(max_slices));
}

void StepBuilder::clear() {
  tokens_.clear();
  slices_.clear();
  logit_rows_.clear();
  samples_.clear();
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
