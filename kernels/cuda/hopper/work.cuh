#pragma once

// What the planning kernels write and the attention kernel reads.

#include <cstdint>

namespace mobius::hopper {

constexpr int kTileRows = 128;  ///< query rows of a work item
constexpr int kTileKeys = 128;  ///< keys per step of a work item
constexpr int kHalfKeys = 64;   ///< unit in which pages are looked up; divides every page size

/// Where the results of an item go.
enum class Destination : std::int32_t {
  output,   ///< the final rows: the item sees everything that its queries attend
  current,  ///< the partial result of the current block, last slot of each pair
  listed,   ///< rows are gathered: entries of the inverse index name pair and slot
};

/// Up to 128 query rows against consecutive keys of one sequence and KV head. Rows are consecutive
/// tokens of one query head, causal (`output`, `current`), or entries of the inverse index
/// (`listed`).
struct alignas(16) WorkItem {
  std::int32_t count;  ///< rows; 0 ends a block's work
  Destination destination;
  std::int32_t first;       ///< first row, or first entry of the index
  std::int32_t head;        ///< query head, or KV head where listed
  std::int32_t table_row;   ///< row of the page table, or first page where there is no table
  std::int32_t keys_begin;  ///< first position attended, a multiple of 64
  std::int32_t keys_end;    ///< one past the last position attended by any row
  std::int32_t position;    ///< position of the first row; unused where listed
};
static_assert(sizeof(WorkItem) == 32);

/// A slice's share of a pass, and where its parts begin.
struct SlicePlan {
  std::int32_t first_row;       ///< row of `position_begin`
  std::int32_t position_begin;  ///< positions of this pass
  std::int32_t position_end;
  std::int32_t block;  ///< 0: full attention
  std::int32_t top_k;
  std::int32_t table_row;
  std::int32_t tile;          ///< positions per contiguous item: 128, or 64 where blocks ask for it
  std::int32_t item_begin;    ///< first contiguous item
  std::int32_t output_tiles;  ///< contiguous tiles that see everything, of `tiles`
  std::int32_t tiles;
  std::int32_t blocks;         ///< candidate blocks of the last position; 0 if nothing is gated
  std::int32_t block_begin;    ///< first of them in arrays over all slices' blocks
  std::int32_t gate_begin;     ///< first gating tile (per KV head)
  std::int32_t gate_position;  ///< first position that chooses, i.e. has more blocks than top_k
  std::int32_t page_begin;     ///< first of its pages, where those lie one slice after the other
  std::int32_t item_row;       ///< what items have as table_row
};

/// Device-side counts of a pass.
struct PassTotals {
  std::int32_t contiguous_items;
  std::int32_t listed_items;
  std::int32_t blocks;      ///< candidate blocks over all slices
  std::int32_t gate_tiles;  ///< per KV head
  std::int32_t next_item;   ///< work counter of the attention kernel
};

}  // namespace mobius::hopper
