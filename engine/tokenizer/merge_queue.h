#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mobius {

/// The merges that a long piece could make, lowest rank first, then leftmost. A queue per rank,
/// since a piece knows few ranks and notes the positions of one mostly from left to right: far
/// cheaper for a megabyte of one letter than one heap of all, and O(log n) for whatever comes.
/// Not thread-safe.
class MergeQueue {
 public:
  struct Entry {
    std::int32_t rank = 0;
    std::int32_t at = 0;
  };

  MergeQueue();
  bool empty() const { return ranks_.empty(); }
  void push(Entry entry);
  /// The next entry; the queue must not be empty.
  Entry pop();
  /// Forgets the ranks, keeps the memory. The queue must be empty.
  void reset();

 private:
  struct Bucket {
    std::int32_t rank = 0;
    bool waiting = false;               // stands in ranks_
    std::size_t head = 0;               // first of `ordered` that has not been taken
    std::vector<std::int32_t> ordered;  // positions in ascending order
    std::vector<std::int32_t> late;     // a heap of those that came out of order, least first
  };

  std::int32_t bucket_of(std::int32_t rank);
  std::size_t slot_of(std::int32_t rank) const;
  void grow();

  std::vector<Bucket> buckets_;  // the first used_ are in use
  std::int32_t used_ = 0;
  std::vector<std::int32_t> slots_;   // open addressing by rank: a bucket, or -1
  std::vector<std::uint64_t> ranks_;  // a heap of rank << 32 | bucket, least first
};

}  // namespace mobius
