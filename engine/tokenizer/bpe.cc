#include "engine/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <limits>

#include "engine/tokenizer/merge_queue.h"

namespace mobius {
namespace {

constexpr std::int32_t kNoRank = std::numeric_limits<std::int32_t>::max();

// Up to this many bytes, looking through all pairs for each merge beats a queue.
constexpr std::size_t kShort = 40;

// Positions are 32-bit; a piece beyond this is cut (merges do not cross the cut).
constexpr std::size_t kLongest = std::size_t{1} << 30;

constexpr std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) |
         static_cast<std::uint32_t>(right);
}

constexpr std::uint64_t mix(std::uint64_t pair) {
  return (pair ^ (pair >> 29)) * 0x9E3779B97F4A7C15u;  // Fibonacci hashing
}

}  // namespace

/// A piece as a linked list of tokens, and the merges that were possible when noted.
struct Bpe::Workspace::Buffers {
  struct Symbol {
    std::int32_t token = 0;  // -1 once it is part of the one before
    std::int32_t previous = -1;
    std::int32_t next = -1;
  };
  std::vector<Symbol> symbols;
  MergeQueue queue;
};

Bpe::Workspace::Workspace() : buffers_(std::make_unique<Buffers>()) {}
Bpe::Workspace::~Workspace() = default;

Bpe::Bpe(std::span<const std::int32_t, 256> byte_tokens, std::span<const BpeMerge> merges) {
  std::copy(byte_tokens.begin(), byte_tokens.end(), byte_tokens_.begin());
  const std::size_t size = std::bit_ceil(std::max<std::size_t>(16, merges.size() * 2));
  slots_.resize(size);
  shift_ = 64 - std::countr_zero(size);
  for (const BpeMerge& merge : merges) {
    const std::uint64_t pair = pair_of(merge.left, merge.right);
    std::size_t at = mix(pair) >> shift_;
    while (slots_[at].pair != kNoPair) at = (at + 1) & (size - 1);
    slots_[at] = {pair, merge.rank, merge.result};
  }
}

const Bpe::Slot* Bpe::find(std::int32_t left, std::int32_t right) const {
  const std::uint64_t pair = pair_of(left, right);
  std::size_t at = mix(pair) >> shift_;
  while (slots_[at].pair != pair) {
    if (slots_[at].pair == kNoPair) return nullptr;
    at = (at + 1) & (slots_.size() - 1);
  }
  return &slots_[at];
}

void Bpe::encode(std::string_view piece, Workspace& workspace,
                 std::vector<std::int32_t>& out) const {
  while (piece.size() > kLongest) {
    encode_long(piece.substr(0, kLongest), *workspace.buffers_, out);
    piece.remove_prefix(kLongest);
  }
  if (piece.size() <= kShort) {
    encode_short(piece, out);
  } else {
    encode_long(piece, *workspace.buffers_, out);
  }
}

void Bpe::encode_short(std::string_view piece, std::vector<std::int32_t>& out) const {
  // merges[i] is what tokens i and i + 1 become.
  std::array<std::int32_t, kShort> tokens;
  std::array<Slot, kShort> merges;
  std::size_t count = piece.size();
  for (std::size_t i = 0; i < count; ++i) {
    tokens[i] = byte_tokens_[static_cast<unsigned char>(piece[i])];
  }
  const auto look_up = [&](std::size_t i) {
    const Slot* slot = find(tokens[i], tokens[i + 1]);
    merges[i].rank = slot != nullptr ? slot->rank : kNoRank;
    merges[i].result = slot != nullptr ? slot->result : 0;
  };
  for (std::size_t i = 0; i + 1 < count; ++i) look_up(i);

  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNoRank) break;
    tokens[best] = merges[best].result;
    std::copy(tokens.begin() + best + 2, tokens.begin() + count, tokens.begin() + best + 1);
    if (best + 2 < count) {
      std::copy(merges.begin() + best + 2, merges.begin() + count - 1, merges.begin() + best + 1);
    }
    --count;
    if (best + 1 < count) look_up(best);
    if (best > 0) look_up(best - 1);
  }
  out.insert(out.end(), tokens.begin(), tokens.begin() + count);
}

void Bpe::encode_long(std::string_view piece, Workspace::Buffers& buffers,
                      std::vector<std::int32_t>& out) const {
  auto& symbols = buffers.symbols;
  MergeQueue& queue = buffers.queue;
  const auto count = static_cast<std::int32_t>(piece.size());
  symbols.resize(piece.size());
  for (std::int32_t i = 0; i < count; ++i) {
    symbols[i] = {byte_tokens_[static_cast<unsigned char>(piece[i])], i - 1,
                  i + 1 < count ? i + 1 : -1};
  }
  const auto merge_at = [&](std::int32_t at) -> const Slot* {
    const auto& left = symbols[at];
    return left.token < 0 || left.next < 0 ? nullptr : find(left.token, symbols[left.next].token);
  };
  const auto note = [&](std::int32_t at) {
    const Slot* slot = merge_at(at);
    if (slot != nullptr) queue.push({slot->rank, at});
  };
  for (std::int32_t i = 0; i + 1 < count; ++i) note(i);

  while (!queue.empty()) {
    const MergeQueue::Entry entry = queue.pop();
    // A note is stale once either token has been merged: another pair, or none, stands there.
    const Slot* slot = merge_at(entry.at);
    if (slot == nullptr || slot->rank != entry.rank) continue;

    Workspace::Buffers::Symbol& left = symbols[entry.at];
    Workspace::Buffers::Symbol& right = symbols[left.next];
    left.token = slot->result;
    left.next = right.next;
    right.token = -1;
    if (left.next >= 0) symbols[left.next].previous = entry.at;
    if (left.previous >= 0) note(left.previous);
    note(entry.at);
  }
  for (std::int32_t i = 0; i >= 0; i = symbols[i].next) out.push_back(symbols[i].token);

  // One monstrous piece should not hold its memory for the rest of a text.
  if (symbols.capacity() > (std::size_t{1} << 16)) {
    symbols = {};
    queue = MergeQueue();
  } else {
    queue.reset();
  }
}

}  // namespace mobius
