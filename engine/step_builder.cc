#include "engine/step_builder.h"

#include <cstddef>

namespace mobius {

StepBuilder::StepBuilder(std::int32_t max_rows, std::int32_t max_slices) {
  tokens_.reserve(static_cast<std::size_t>(max_rows));
  positions_.reserve(static_cast<std::size_t>(max_rows));
  slices_.reserve(static_cast<std::size_t>(max_slices));
  samples_.reserve(static_cast<std::size_t>(max_slices));
}

void StepBuilder::clear() {
  tokens_.clear();
  positions_.clear();
  slices_.clear();
  samples_.clear();
}

void StepBuilder::add(const PlannedSlice& planned, const Sequence& sequence) {
  const auto first_row = static_cast<std::int32_t>(tokens_.size());
  const auto rows = sequence.tokens().subspan(static_cast<std::size_t>(planned.first),
                                              static_cast<std::size_t>(planned.count));
  tokens_.insert(tokens_.end(), rows.begin(), rows.end());
  for (std::int32_t i = 0; i < planned.count; ++i) positions_.push_back(planned.first + i);

  const AttentionSettings& attention = sequence.request().attention;
  SequenceSlice slice;
  slice.first_row = first_row;
  slice.num_rows = planned.count;
  slice.first_position = planned.first;
  slice.pages = planned.pages;
  slice.policy = planned.prompt ? attention.prefill : attention.decode;
  slice.full_attention_last_layers = attention.full_attention_last_layers;
  slices_.push_back(slice);

  if (!planned.samples) return;
  SampleRow sample;
  sample.row = first_row + planned.count - 1;
  sample.params = &sequence.request().sampling;
  sample.prompt = sequence.prompt();
  sample.generated = sequence.generated();
  samples_.push_back(sample);
}

}  // namespace mobius
