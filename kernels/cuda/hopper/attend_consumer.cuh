#pragma once

// The consumer warpgroups of the attention kernel.

#include "kernels/cuda/hopper/attend.cuh"

namespace mobius::hopper {

/// State of one warpgroup's 64 rows; a thread holds two rows (wgmma.cuh).
template <int kDim>
struct Rows {
  float scores[kTileKeys / 2];
  float out[kDim / 2];
  std::uint32_t p[kTileKeys / 4];
  float max[2];
  float sum[2];
};

template <int kDim>
__device__ __forceinline__ void issue_scores(Rows<kDim>& r, const std::uint8_t* q,
                                             const std::uint8_t* k) {
  const std::uint64_t a = descriptor_rows(q);
  const std::uint64_t b = descriptor_rows(k);
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    const int offset = (step / 4) * (kTileKeys * 128 >> 4) + (step % 4) * 2;
    mma_ss_n128(r.scores, a + offset, b + offset, step > 0);
  }
}

template <int kDim>
__device__ __forceinline__ void issue_values(Rows<kDim>& r, const std::uint8_t* v, bool first) {
  const std::uint64_t b = descriptor_columns(v, kTileKeys * 128);
#pragma unroll
  for (int step = 0; step < kTileKeys / 16; ++step) {
    const int accumulate = !(first && step == 0);
    if constexpr (kDim == 128) {
      mma_rs_n128(r.out, r.p[4 * step], r.p[4 * step + 1], r.p[4 * step + 2], r.p[4 * step + 3],
                  b + 128 * step, accumulate);
    } else {
      mma_rs_n64(r.out, r.p[4 * step], r.p[4 * step + 1], r.p[4 * step + 2], r.p[4 * step + 3],
                 b + 128 * step, accumulate);
    }
  }
}

/// Scores of columns at or beyond each row's limit become -inf.
template <int kDim>
__device__ __forceinline__ void mask(Rows<kDim>& r, int limit0, int limit1) {
  const int column = 2 * static_cast<int>(threadIdx.x & 3);
#pragma unroll
  for (int i = 0; i < kTileKeys / 2; ++i) {
    const int c = 8 * (i / 4) + i % 2 + column;
    if (c >= ((i / 2) % 2 ? limit1 : limit0)) r.scores[i] = -INFINITY;
  }
}

/// Scores become probabilities against the running maximum (still fp32, in place); the sums take
/// this thread's columns. Returns in `rescale` what earlier results must be multiplied by.
template <int kDim, bool kFirst>
__device__ __forceinline__ void softmax(Rows<kDim>& r, float scale_log2, float (&rescale)[2]) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    float best = r.scores[2 * row];
#pragma unroll
    for (int i = 0; i < kTileKeys / 4; ++i) {
      best = fmaxf(best, r.scores[4 * (i / 2) + 2 * row + i % 2]);
    }
    best = fmaxf(best, __shfl_xor_sync(0xFFFFFFFFu, best, 1));
    best = fmaxf(best, __shfl_xor_sync(0xFFFFFFFFu, best, 2));
    if constexpr (!kFirst) {
      best = fmaxf(best, r.max[row]);
      rescale[row] = exp2_approx((r.max[row] - best) * scale_log2);
      r.sum[row] *= rescale[row];
    } else {
      r.sum[row] = 0.0f;
    }
    r.max[row] = best;
    const float offset = best * scale_log2;
#pragma unroll
    for (int i = 0; i < kTileKeys / 4; ++i) {
      float& x = r.scores[4 * (i / 2) + 2 * row + i % 2];
      x = exp2_approx(fmaf(x, scale_log2, -offset));
      r.sum[row] += x;
    }
  }
}

template <int kDim>
__device__ __forceinline__ void pack_probabilities(Rows<kDim>& r) {
#pragma unroll
  for (int i = 0; i < kTileKeys / 4; ++i) {
    r.p[i] = pack_bf16(r.scores[2 * i], r.scores[2 * i + 1]);
  }
}

/// Values past the sequence's end are whatever the page held before, perhaps NaN, and 0 * NaN is
/// NaN: clears them. Both warpgroups write the same zeros, each before its own product.
__device__ __forceinline__ void clear_tail(std::uint8_t* v, int bytes, int first_row, int group) {
  const int lane = static_cast<int>(threadIdx.x & 127);
  const int row_chunks = 8 * (bytes / (kTileKeys * 128));
  const std::uint32_t tile = smem_address(v);
  for (int i = first_row * row_chunks + lane; i < kTileKeys * row_chunks; i += 128) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(
                     tile + swizzled(i / row_chunks, i % row_chunks, kTileKeys)),
                 "r"(0)
                 : "memory");
  }
  fence_async_proxy();
  named_sync(4 + group, 128);
}

/// Divides, rounds, and writes the rows of this warp by way of its rows of the query tile, which
/// nothing reads any more.
template <int kDim>
__device__ __forceinline__ void write_rows(const AttendParams& p, AttendShared<kDim>& s,
                                           Rows<kDim>& r, const WorkItem& item, int buffer,
                                           int group) {
  constexpr int kChunks = kDim / 8;
  constexpr int kRowsAtOnce = 32 / kChunks;
  const int lane = static_cast<int>(threadIdx.x & 31);
  const int warp_row = group * 64 + (static_cast<int>(threadIdx.x >> 5) & 3) * 16;
  float inverse[2];
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    float sum = r.sum[row];
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
    inverse[row] = __fdividef(1.0f, sum);
    const int mine = warp_row + lane / 4 + 8 * row;
    if (item.destination != Destination::output && lane % 4 == 0 && mine < item.count) {
      p.partial_lse[s.target[buffer][mine]] = fmaf(r.max[row], p.scale_log2, __log2f(sum));
    }
  }
  named_sync(4 + group, 128);
  const std::uint32_t tile = smem_address(s.q[buffer]);
  const int matrix_row = warp_row + (lane & 15);
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    const float* o = r.out + 8 * step;
    store_matrix_x4(tile + swizzled(matrix_row, 2 * step + (lane >> 4), kTileRows),
                    pack_bf16(o[0] * inverse[0], o[1] * inverse[0]),
                    pack_bf16(o[2] * inverse[1], o[3] * inverse[1]),
                    pack_bf16(o[4] * inverse[0], o[5] * inverse[0]),
                    pack_bf16(o[6] * inverse[1], o[7] * inverse[1]));
  }
  __syncwarp();
  std::uint16_t* const base = item.destination == Destination::output ? p.out : p.partial;
#pragma unroll
  for (int i = 0; i < 16; i += kRowsAtOnce) {
    const int row = warp_row + i + lane / kChunks;
    const int chunk = lane % kChunks;
    const uint4 data =
        *reinterpret_cast<const uint4*>(s.q[buffer] + swizzled(row, chunk, kTileRows));
    if (row < item.count) {
      std::uint16_t* dst =
          base + static_cast<std::int64_t>(s.target[buffer][row]) * kDim + chunk * 8;
      *reinterpret_cast<uint4*>(dst) = data;
    }
  }
}

/// One warpgroup: `group` 0 or 1.
template <int kDim>
__device__ __forceinline__ void consume(const AttendParams& p, AttendShared<kDim>& s, int group) {
  const int lane = static_cast<int>(threadIdx.x & 31);
  const int row0 = group * 64 + (static_cast<int>(threadIdx.x >> 5) & 3) * 16 + lane / 4;
  const int my_turn = 2 + group;
  const int their_turn = 3 - group;
  const auto release = [&](std::uint64_t* bar) {
    __syncwarp();
    if (lane == 0) barrier_arrive(bar);
  };
  if (group == 1) named_arrive(their_turn, 256);  // the first turn is group 0's

  Ring<AttendShared<kDim>::kItems> ring;
  Ring<2> buffer;
  Ring<AttendShared<kDim>::kStages> k_stage, v_stage;
  Rows<kDim> r;
  float rescale[2];
  const auto wait_for = [&](std::uint64_t* full, const auto& stage) {
    barrier_wait(full + stage.index, stage.phase);
  };
  const auto queries = [&](const Ring<2>& at) { return s.q[at.index] + group * 64 * 128; };
  const auto tiles_of = [](const WorkItem& item) {
    return (item.keys_end - item.keys_begin + kTileKeys - 1) / kTileKeys;
  };
  // An item's first tile is its last keys, the only ones that need a mask.
  const auto first_softmax = [&](const WorkItem& item) {
    const int last_tile = item.keys_begin + (tiles_of(item) - 1) * kTileKeys;
    const int limit = item.keys_end - last_tile;
    const int own =
        item.destination == Destination::listed ? kTileKeys : item.position - last_tile + row0 + 1;
    if (item.destination != Destination::listed || limit < kTileKeys) {
      mask(r, min(limit, own), min(limit, own + 8));
    }
    softmax<kDim, true>(r, p.scale_log2, rescale);
  };
  // Before the values of an item's first tile are used.
  const auto begin_values = [&](const WorkItem& item) {
    const int tail = (item.keys_end - item.keys_begin - 1) % kTileKeys + 1;
    if (item.destination != Destination::listed && tail < kTileKeys) {
      wait_for(s.v_full, v_stage);
      clear_tail(s.v[v_stage.index], kTileKeys * kDim * 2, tail, group);
    }
#pragma unroll
    for (int i = 0; i < kDim / 2; ++i) r.out[i] = 0.0f;
  };

  WorkItem item = take_item(s, ring);
  if (item.count == 0) return;
  wait_for(s.q_full, buffer);
  wait_for(s.k_full, k_stage);
  wgmma_fence();
  issue_scores(r, queries(buffer), s.k[k_stage.index]);
  wgmma_commit();
  wgmma_wait<0>();
  pin(r.scores);
  release(&s.k_empty[k_stage.index]);
  k_stage.next();
  first_softmax(item);
  pack_probabilities(r);
  begin_values(item);

  while (true) {
    const std::uint8_t* q = queries(buffer);
    const int tiles = tiles_of(item);
#pragma unroll 1
    for (int tile = 1; tile < tiles; ++tile) {
      wait_for(s.k_full, k_stage);
      named_sync(my_turn, 256);
      wgmma_fence();
      issue_scores(r, q, s.k[k_stage.index]);
      wgmma_commit();
      wait_for(s.v_full, v_stage);
      issue_values(r, s.v[v_stage.index], false);
      wgmma_commit();
      named_arrive(their_turn, 256);
      wgmma_wait<1>();
      pin(r.scores);
      release(&s.k_empty[k_stage.index]);
      k_stage.next();
      softmax<kDim, false>(r, p.scale_log2, rescale);
      pin(r.scores);  // else the compiler sinks the exponentials below the wait
      wgmma_wait<0>();
      pin(r.out);
      release(&s.v_empty[v_stage.index]);
      v_stage.next();
      pack_probabilities(r);
#pragma unroll
      for (int i = 0; i < kDim / 2; ++i) r.out[i] *= rescale[(i / 2) % 2];
    }

    // The last values of this item go with the first scores of the next one, and this one's results
    // leave while the other warpgroup has the tensor cores.
    const WorkItem next = take_item(s, ring);
    if (next.count == 0) {
      wait_for(s.v_full, v_stage);
      wgmma_fence();
      issue_values(r, s.v[v_stage.index], false);
      wgmma_commit();
      wgmma_wait<0>();
      pin(r.out);
      write_rows(p, s, r, item, buffer.index, group);
      return;
    }
    Ring<2> next_buffer = buffer;
    next_buffer.next();
    wait_for(s.q_full, next_buffer);
    wait_for(s.k_full, k_stage);
    named_sync(my_turn, 256);
    wgmma_fence();
    issue_scores(r, queries(next_buffer), s.k[k_stage.index]);
    wgmma_commit();
    wait_for(s.v_full, v_stage);
    issue_values(r, s.v[v_stage.index], false);
    wgmma_commit();
    named_arrive(their_turn, 256);
    const float max[2] = {r.max[0], r.max[1]};
    const float sum[2] = {r.sum[0], r.sum[1]};
    wgmma_wait<1>();
    pin(r.scores);
    release(&s.k_empty[k_stage.index]);
    k_stage.next();
    first_softmax(next);
    pin(r.scores);
    wgmma_wait<0>();
    pin(r.out);
    release(&s.v_empty[v_stage.index]);
    v_stage.next();
    const float next_max[2] = {r.max[0], r.max[1]};
    const float next_sum[2] = {r.sum[0], r.sum[1]};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      r.max[i] = max[i];
      r.sum[i] = sum[i];
    }
    write_rows(p, s, r, item, buffer.index, group);
    barrier_arrive(&s.q_empty[buffer.index]);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      r.max[i] = next_max[i];
      r.sum[i] = next_sum[i];
    }
    pack_probabilities(r);
    begin_values(next);
    item = next;
    buffer = next_buffer;
  }
}

template <int kDim>
__global__ void __launch_bounds__(kAttendThreads, 1)
    attend_kernel(const __grid_constant__ AttendParams p, const __grid_constant__ CUtensorMap k_map,
                  const __grid_constant__ CUtensorMap v_map) {
  extern __shared__ std::uint8_t raw[];
  auto& s = aligned_shared<AttendShared<kDim>>(raw);
  constexpr int kConsumerWarps = 8;
  constexpr int kItemReaders = kConsumerWarps * 32 + 32 + kQueryLoaders;
  if (threadIdx.x == 0) {
    prefetch_tensor_map(&k_map);
    prefetch_tensor_map(&v_map);
    for (int i = 0; i < AttendShared<kDim>::kItems; ++i) {
      barrier_init(&s.item_full[i], 1);
      barrier_init(&s.item_empty[i], kItemReaders);
    }
    for (int i = 0; i < 2; ++i) {
      barrier_init(&s.q_full[i], kQueryLoaders);
      barrier_init(&s.q_empty[i], kConsumerWarps * 32);
    }
    for (int i = 0; i < AttendShared<kDim>::kStages; ++i) {
      barrier_init(&s.k_full[i], 1);
      barrier_init(&s.v_full[i], 1);
      barrier_init(&s.k_empty[i], kConsumerWarps);
      barrier_init(&s.v_empty[i], kConsumerWarps);
    }
    barrier_init_fence();
  }
  join_chain();
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x / 128);
  if (group == 0) {
    registers_shrink<kProducerRegisters>();
    const int warp = static_cast<int>(threadIdx.x / 32);
    if (warp == 0) {
      load_keys<kDim>(p, s, &k_map, &v_map);
    } else if (warp == 1) {
      if (threadIdx.x % 32 == 0) schedule<kDim>(p, s);
    } else {
      load_queries<kDim>(p, s);
    }
  } else {
    registers_grow<kConsumerRegisters>();
    consume<kDim>(p, s, group - 1);
  }
}

}  // namespace mobius::hopper
