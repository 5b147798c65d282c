#include "engine/tokenizer/merge_queue.h"

#include <algorithm>
#include <functional>

namespace mobius {
namespace {

constexpr std::size_t kFirstSlots = 128;

}  // namespace

MergeQueue::MergeQueue() : slots_(kFirstSlots, -1) {}

std::size_t MergeQueue::slot_of(std::int32_t rank) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = (static_cast<std::uint32_t>(rank) * std::size_t{0x9E3779B1u} >> 7) & mask;
  while (slots_[at] >= 0 && buckets_[slots_[at]].rank != rank) at = (at + 1) & mask;
  return at;
}

void MergeQueue::grow() {
  slots_.assign(slots_.size() * 2, -1);
  for (std::int32_t i = 0; i < used_; ++i) slots_[slot_of(buckets_[i].rank)] = i;
}

std::int32_t MergeQueue::bucket_of(std::int32_t rank) {
  std::size_t slot = slot_of(rank);
  if (slots_[slot] >= 0) return slots_[slot];
  if (static_cast<std::size_t>(used_) * 2 >= slots_.size()) {
    grow();
    slot = slot_of(rank);
  }
  if (static_cast<std::size_t>(used_) == buckets_.size()) buckets_.emplace_back();
  buckets_[used_].rank = rank;
  slots_[slot] = used_;
  return used_++;
}

void MergeQueue::push(Entry entry) {
  const std::int32_t index = bucket_of(entry.rank);
  Bucket& bucket = buckets_[index];
  if (bucket.ordered.empty() || bucket.ordered.back() <= entry.at) {
    bucket.ordered.push_back(entry.at);
  } else {
    bucket.late.push_back(entry.at);
    std::push_heap(bucket.late.begin(), bucket.late.end(), std::greater<>());
  }
  if (!bucket.waiting) {
    bucket.waiting = true;
    ranks_.push_back((static_cast<std::uint64_t>(entry.rank) << 32) |
                     static_cast<std::uint32_t>(index));
    std::push_heap(ranks_.begin(), ranks_.end(), std::greater<>());
  }
}

MergeQueue::Entry MergeQueue::pop() {
  Bucket& bucket = buckets_[static_cast<std::uint32_t>(ranks_.front())];
  Entry entry{bucket.rank, 0};
  const bool has_ordered = bucket.head < bucket.ordered.size();
  if (has_ordered && (bucket.late.empty() || bucket.ordered[bucket.head] <= bucket.late.front())) {
    entry.at = bucket.ordered[bucket.head++];
    if (bucket.head == bucket.ordered.size()) {
      bucket.ordered.clear();
      bucket.head = 0;
    }
  } else {
    entry.at = bucket.late.front();
    std::pop_heap(bucket.late.begin(), bucket.late.end(), std::greater<>());
    bucket.late.pop_back();
  }
  if (bucket.ordered.empty() && bucket.late.empty()) {
    bucket.waiting = false;
    std::pop_heap(ranks_.begin(), ranks_.end(), std::greater<>());
    ranks_.pop_back();
  }
  return entry;
}

void MergeQueue::reset() {
  std::fill(slots_.begin(), slots_.end(), -1);
  used_ = 0;
}

}  // namespace mobius
