#pragma once

// Attention of work items (work.cuh): one persistent kernel for dense prefill, current blocks and
// gathered queries. After FlashAttention-3: a producer warpgroup that only moves data, two consumer
// warpgroups of 64 rows that take turns at the tensor cores, the softmax of one tile under the
// products of the next, probabilities in registers.

#include <cuda.h>

#include "kernels/cuda/hopper/wgmma.cuh"
#include "kernels/cuda/hopper/work.cuh"

namespace mobius::hopper {

struct AttendParams {
  const std::uint16_t* q;     ///< [rows, q_heads, d] bf16
  std::uint16_t* out;         ///< [rows, q_heads, d] bf16
  std::uint16_t* partial;     ///< [pairs, slots, d] bf16
  float* partial_lse;         ///< [pairs, slots], base 2
  const std::uint32_t* list;  ///< inverse index: pair * slots + slot
  const WorkItem* contiguous;
  const WorkItem* listed;
  PassTotals* totals;
  const std::int32_t* page_table;  ///< null: an item's pages are its table_row and those after it
  std::int32_t table_stride;
  std::int32_t q_heads, kv_heads, page_tokens;
  std::int32_t group;          ///< query heads per KV head
  std::int32_t first_kv_head;  ///< that pages hold, of kv_heads
  std::int32_t box_rows;       ///< keys per copy, 64 or 128
  std::int32_t first_row;      ///< of the pass; pair 0 is its first head there
  std::int32_t first_head;     ///< first query head of the pass
  std::int32_t pass_heads;     ///< query heads of the pass
  std::int32_t slots;
  float scale_log2;  ///< log2(e) / sqrt(d)
};

template <int kDim>
struct AttendShared {
  static constexpr int kStages = 2;
  static constexpr int kItems = 4;  ///< items known ahead
  alignas(1024) std::uint8_t q[2][kTileRows * kDim * 2];
  alignas(1024) std::uint8_t k[kStages][kTileKeys * kDim * 2];
  alignas(1024) std::uint8_t v[kStages][kTileKeys * kDim * 2];
  std::uint32_t target[2][kTileRows];  ///< where a row's result goes, in vectors of d
  WorkItem item[kItems];
  std::uint64_t item_full[kItems], item_empty[kItems], q_full[2], q_empty[2];
  std::uint64_t k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
};

constexpr int kProducerRegisters = 56;
constexpr int kConsumerRegisters = 224;
constexpr int kQueryLoaders = 64;
constexpr int kAttendThreads = 384;

/// Position in a ring of kDepth buffers.
template <int kDepth>
struct Ring {
  int index = 0;
  std::uint32_t phase = 0;
  __device__ __forceinline__ void next() {
    if (++index == kDepth) {
      index = 0;
      phase ^= 1;
    }
  }
};

/// One lane: hands items to the block, in the order of the list, longest first.
template <int kDim>
__device__ __forceinline__ void schedule(const AttendParams& p, AttendShared<kDim>& s) {
  const int contiguous = p.totals->contiguous_items;
  const int items = contiguous + p.totals->listed_items;
  Ring<AttendShared<kDim>::kItems> ring;
  // The first item by rank, so that it waits for no counter.
  int next = static_cast<int>(blockIdx.x);
  while (true) {
    WorkItem item{};
    if (next < items) item = next < contiguous ? p.contiguous[next] : p.listed[next - contiguous];
    barrier_wait(&s.item_empty[ring.index], ring.phase ^ 1);
    s.item[ring.index] = item;
    barrier_arrive(&s.item_full[ring.index]);
    if (item.count == 0) return;
    ring.next();
    next = static_cast<int>(gridDim.x) + atomicAdd(&p.totals->next_item, 1);
  }
}

/// Reads the next item. Every thread that reads items calls it for each, the last (empty) one
/// included, and the slot is free again when all have.
template <int kDim>
__device__ __forceinline__ WorkItem take_item(AttendShared<kDim>& s,
                                              Ring<AttendShared<kDim>::kItems>& ring) {
  barrier_wait(&s.item_full[ring.index], ring.phase);
  const WorkItem item = s.item[ring.index];
  barrier_arrive(&s.item_empty[ring.index]);
  ring.next();
  return item;
}

/// The page ids of 32 units of 64 tokens of an item, one per lane.
struct PageWindow {
  std::int32_t first;  ///< unit of lane 0
  std::int32_t page;

  __device__ __forceinline__ void load(const AttendParams& p, const WorkItem& item, int last) {
    const int item_first = item.keys_begin / kHalfKeys;
    const int item_last = (item.keys_end - 1) / kHalfKeys;
    first = max(last - 31, item_first);
    const int unit = min(first + static_cast<int>(threadIdx.x & 31), item_last);
    const int index = unit / (p.page_tokens / kHalfKeys);
    page = p.page_table == nullptr
               ? item.table_row + index
               : p.page_table[static_cast<std::int64_t>(item.table_row) * p.table_stride + index];
  }
};

/// One warp: keys and values, last tile first, so that what needs a mask comes first. The next
/// item's page ids are fetched while this one's keys travel.
template <int kDim>
__device__ __forceinline__ void load_keys(const AttendParams& p, AttendShared<kDim>& s,
                                          const CUtensorMap* k_map, const CUtensorMap* v_map) {
  const int lane = static_cast<int>(threadIdx.x & 31);
  const int group = p.group;
  const int page_units = p.page_tokens / kHalfKeys;
  // Boxes of 128 keys where pages are multiples of that, else a tile is two boxes.
  const bool whole = p.box_rows == kTileKeys;
  const auto top_unit = [](const WorkItem& item) {
    const int first = item.keys_begin / kHalfKeys;
    return first + (((item.keys_end - 1) / kHalfKeys - first) & ~1);
  };
  Ring<AttendShared<kDim>::kItems> ring;
  Ring<AttendShared<kDim>::kStages> stage;
  WorkItem item = take_item(s, ring);
  PageWindow window{};
  if (item.count != 0) window.load(p, item, top_unit(item) + 1);
  while (item.count != 0) {
    const WorkItem next = take_item(s, ring);
    PageWindow next_window{};
    if (next.count != 0) next_window.load(p, next, top_unit(next) + 1);
    const int kv_head =
        (item.destination == Destination::listed ? item.head : item.head / group) - p.first_kv_head;
    const int first_unit = item.keys_begin / kHalfKeys;
    const int last_unit = (item.keys_end - 1) / kHalfKeys;
    for (int unit = top_unit(item); unit >= first_unit; unit -= 2) {
      if (unit < window.first) window.load(p, item, unit + 1);
      int row[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        // Past the last unit, which the item's mask hides: the last one again.
        const int at = min(unit + half, last_unit);
        const int page = __shfl_sync(0xFFFFFFFFu, window.page, at - window.first);
        row[half] = (page * p.kv_heads + kv_head) * p.page_tokens + at % page_units * kHalfKeys;
      }
      if (lane == 0) {
        const auto load = [&](std::uint8_t* tile, const CUtensorMap* map, std::uint64_t* full) {
          barrier_expect(full, kTileKeys * kDim * 2);
          for (int half = 0; half < kDim / 64; ++half) {
            std::uint8_t* dst = tile + half * kTileKeys * 128;
            tma_load(dst, map, half * 64, row[0], full);
            if (!whole) tma_load(dst + kHalfKeys * 128, map, half * 64, row[1], full);
          }
        };
        barrier_wait(&s.k_empty[stage.index], stage.phase ^ 1);
        load(s.k[stage.index], k_map, &s.k_full[stage.index]);
        barrier_wait(&s.v_empty[stage.index], stage.phase ^ 1);
        load(s.v[stage.index], v_map, &s.v_full[stage.index]);
      }
      stage.next();
      __syncwarp();
    }
    item = next;
    window = next_window;
  }
}

/// Two warps: query rows of the next item, and where their results go.
template <int kDim>
__device__ __forceinline__ void load_queries(const AttendParams& p, AttendShared<kDim>& s) {
  constexpr int kChunks = kDim / 8;          // of 16 bytes in a row
  constexpr int kRowsAtOnce = 32 / kChunks;  // rows per warp instruction
  const int lane = static_cast<int>(threadIdx.x & 31);
  const int warp_row = (static_cast<int>(threadIdx.x >> 5) & 1) * 64;
  Ring<AttendShared<kDim>::kItems> ring;
  Ring<2> buffer;
  while (true) {
    const WorkItem item = take_item(s, ring);
    if (item.count == 0) return;
    barrier_wait(&s.q_empty[buffer.index], buffer.phase ^ 1);
    const std::uint32_t tile = smem_address(s.q[buffer.index]);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const int mine = warp_row + part * 32 + lane;
      std::uint32_t source = 0;
      if (mine < item.count) {
        std::uint32_t target;
        if (item.destination == Destination::listed) {
          target = p.list[item.first + mine];
          const std::uint32_t pair = target / static_cast<std::uint32_t>(p.slots);
          const std::uint32_t row = pair / static_cast<std::uint32_t>(p.pass_heads);
          source = (row + p.first_row) * p.q_heads + (pair - row * p.pass_heads) + p.first_head;
        } else {
          const std::uint32_t row = item.first + mine;
          source = row * p.q_heads + item.head;
          target =
              item.destination == Destination::output
                  ? source
                  : ((row - p.first_row) * p.pass_heads + (item.head - p.first_head)) * p.slots +
                        (p.slots - 1);
        }
        s.target[buffer.index][mine] = target;
      }
#pragma unroll 4
      for (int i = 0; i < 32; i += kRowsAtOnce) {
        const int from = i + lane / kChunks;
        const int row = warp_row + part * 32 + from;
        const std::uint32_t vector = __shfl_sync(0xFFFFFFFFu, source, from);
        if (row < item.count) {
          const int chunk = lane % kChunks;
          copy_async_16(tile + swizzled(row, chunk, kTileRows),
                        p.q + static_cast<std::int64_t>(vector) * kDim + chunk * 8);
        }
      }
    }
    copy_async_commit();
    copy_async_wait<0>();
    fence_async_proxy();
    barrier_arrive(&s.q_full[buffer.index]);
    buffer.next();
  }
}
}  // namespace mobius::hopper
