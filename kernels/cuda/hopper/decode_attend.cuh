#pragma once

// Decode, second kernel: merge the chunks' best blocks, attend a share of the chosen blocks' keys,
// and let the last of a row's blocks of threads merge the shares. Bandwidth is the limit: plain
// FMAs, many loads in flight.

#include <cuda_bf16.h>

#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/hopper/decode.cuh"
#include "kernels/cuda/hopper/ptx.cuh"

namespace mobius::hopper {

/// Sum of probabilities times values so far, against a running maximum (base 2).
template <int kCount>
struct Accumulator {
  float out[kCount] = {};
  float max = -INFINITY;
  float sum = 0.0f;

  __device__ __forceinline__ void merge(const float* other, float other_max, float other_sum) {
    const float best = fmaxf(max, other_max);
    if (best == -INFINITY) return;
    const float mine = exp2f(max - best);
    const float theirs = exp2f(other_max - best);
    max = best;
    // These roundings and no others, wherever it is compiled.
    sum = __fmaf_rn(other_sum, theirs, __fmul_rn(sum, mine));
#pragma unroll
    for (int i = 0; i < kCount; ++i) out[i] = __fmaf_rn(other[i], theirs, __fmul_rn(out[i], mine));
  }
};

__device__ __forceinline__ void unpack(const uint4& packed, float (&values)[8]) {
  const std::uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = __uint_as_float(words[i] << 16);
    values[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000u);
  }
}

/// 16 e4m3 codes, without their scale.
__device__ __forceinline__ void unpack(const uint4& packed, float (&values)[16]) {
  const std::uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t even = widen_even(words[i]);
    const std::uint32_t odd = widen_odd(words[i]);
    values[4 * i] = __uint_as_float(even << 16);
    values[4 * i + 1] = __uint_as_float(odd << 16);
    values[4 * i + 2] = __uint_as_float(even & 0xFFFF0000u);
    values[4 * i + 3] = __uint_as_float(odd & 0xFFFF0000u);
  }
}

/// A lane's place in the cache's keys and values: where its 16 bytes of the first key of a batch
/// lie, how far those of the i-th of its keys are from it, and that key's scales.
template <int kDim, bool kFp8>
struct KeyBatch {
  static constexpr int kEach = kFp8 ? 16 : 8;  ///< dimensions of a lane
  static constexpr int kLanes = kDim / kEach;  ///< per key
  static constexpr int kGroups = 32 / kLanes;  ///< keys per warp instruction
  static constexpr int kSteps = 8;             ///< such instructions in flight, for keys and values
  static constexpr int kKeys = kSteps * kGroups;  ///< a multiple of kRecordTokens, and at most 64
  std::int64_t first;                             ///< bytes
  int slot;                                       ///< of the lane's first key among its record's

  /// `slot_in_page` is that of the batch's first key, a multiple of kKeys.
  __device__ __forceinline__ KeyBatch(std::int64_t page_vector, int page_tokens, int slot_in_page,
                                      int lane) {
    if constexpr (kFp8) {
      first = (page_vector * page_tokens + slot_in_page) / kRecordTokens * record_bytes(kDim) +
              lane % kLanes * kEach;
      slot = lane / kLanes;
    } else {
      first = ((page_vector * page_tokens + slot_in_page + lane / kLanes) * kDim +
               lane % kLanes * kEach) *
              2;
      slot = 0;
    }
  }
  __device__ __forceinline__ std::int64_t offset(int i) const {
    if constexpr (kFp8) {
      const int key = slot + i * kGroups;
      return first + key / kRecordTokens * record_bytes(kDim) + key % kRecordTokens * kDim;
    } else {
      return first + std::int64_t{i} * kGroups * kDim * 2;
    }
  }
  /// Where the i-th key's scale byte lies.
  __device__ __forceinline__ std::int64_t scale_offset(int i, int lane) const {
    const int key = slot + i * kGroups;
    return first - lane % kLanes * kEach + key / kRecordTokens * record_bytes(kDim) +
           kRecordTokens * kDim + key % kRecordTokens;
  }
};

struct DecodeShared {
  union {
    Candidate best[kDecodeWarps][kDecodeMaxTopK];  ///< while blocks are chosen
    float out[kDecodeWarps][128];                  ///< afterwards
  };
  Candidate merged[kDecodeMaxTopK];
  std::int32_t chosen[kDecodeMaxTopK];  ///< ascending, the current block last
  std::int32_t count;
  float max[kDecodeWarps];
  float sum[kDecodeWarps];
  bool last;
};

/// Fills s.chosen and s.count. The whole block calls it.
__device__ __forceinline__ void choose_blocks(const DecodeParams& p, DecodeShared& s,
                                              const DecodeRow& row, std::int64_t pair) {
  const int lane = static_cast<int>(threadIdx.x & 31);
  const int warp = static_cast<int>(threadIdx.x >> 5);
  if (row.candidates <= row.wanted) {
    for (int i = static_cast<int>(threadIdx.x); i <= row.candidates; i += kDecodeThreads) {
      s.chosen[i] = i;
    }
    if (threadIdx.x == 0) s.count = row.candidates + 1;
    __syncthreads();
    return;
  }
  if (row.wanted == 0) {
    if (threadIdx.x == 0) {
      s.chosen[0] = row.candidates;
      s.count = 1;
    }
    __syncthreads();
    return;
  }
  const int chunks = row.chunks();
  // One warp alone where it can take all at once, else each a share and one of them those.
  const bool few = chunks * row.wanted <= kSelectAtOnce;
  const Candidate* all = p.candidates + pair * p.max_chunks * (p.top_k - 1);
  const auto from_chunks = [&](const Candidate* source) {
    return [&row, &p, source](int i) {
      return source[i / row.wanted * (p.top_k - 1) + i % row.wanted];
    };
  };
  const int share = (chunks + kDecodeWarps - 1) / kDecodeWarps;
  const int first = min(warp * share, chunks);
  const int mine = (min(first + share, chunks) - first) * row.wanted;
  if (!few) {
    int held = 0;
    if (mine > 0) {
      held = warp_select(from_chunks(all + static_cast<std::int64_t>(first) * (p.top_k - 1)), mine,
                         row.wanted, s.best[warp]);
    }
    for (int i = held + lane; i < row.wanted; i += 32) s.best[warp][i] = Candidate{0, -1};
    __syncthreads();
  }
  if (warp == 0) {
    const int found =
        few ? warp_select(from_chunks(all), chunks * row.wanted, row.wanted, s.merged)
            : warp_select([&](int i) { return s.best[i / row.wanted][i % row.wanted]; },
                          kDecodeWarps * row.wanted, row.wanted, s.merged);
    for (int i = lane; i < found; i += 32) {
      int rank = 0;
      for (int j = 0; j < found; ++j) rank += s.merged[j].id < s.merged[i].id;
      s.chosen[rank] = s.merged[i].id;
    }
    if (lane == 0) {
      s.chosen[found] = row.candidates;
      s.count = found + 1;
    }
  }
  __syncthreads();
}

/// What choose_blocks chose, if somebody asks. The first of a row's blocks of threads calls it.
__device__ __forceinline__ void tell_blocks(const DecodeParams& p, const DecodeShared& s,
                                            const Slice& slice, const DecodeRow& row, int head) {
  const Told& told = p.rows.told;
  const int at = told.at[blockIdx.z];
  const int count = slice.top_k - 1;
  const int i = static_cast<int>(threadIdx.x);
  if (at < 0 || i >= count) return;
  const std::int64_t list = static_cast<std::int64_t>(told.layer) * p.rows.q_heads + head;
  told.lists[at + list * count + i] = i < s.count - 1 ? s.chosen[i] : row.candidates;
}

template <int kDim, bool kFp8>
__global__ void __launch_bounds__(kDecodeThreads, 2)
    decode_attend_kernel(const __grid_constant__ DecodeParams p) {
  using Batch = KeyBatch<kDim, kFp8>;
  constexpr int kEach = Batch::kEach;
  constexpr int kLanes = Batch::kLanes;
  constexpr int kGroups = Batch::kGroups;
  constexpr int kSteps = Batch::kSteps;
  constexpr int kBatch = Batch::kKeys;
  __shared__ DecodeShared s;
  release_next_kernel();
  const Slice slice = p.rows.slices[blockIdx.z];
  const DecodeRow row(slice, p.top_k);
  const int head = static_cast<int>(blockIdx.y);
  const int kv_head = head / (p.rows.q_heads / p.kv.kv_heads);
  const std::int64_t pair = static_cast<std::int64_t>(blockIdx.z) * p.rows.q_heads + head;
  const int lane = static_cast<int>(threadIdx.x & 31);
  const int warp = static_cast<int>(threadIdx.x >> 5);
  const int split = static_cast<int>(blockIdx.x);

  const int parts = row.parts();
  const int splits = min(min(p.splits, parts), (row.most_keys() + p.share_keys - 1) / p.share_keys);
  // The first of a row waits even if it has nothing to do: what comes next takes the end of this
  // kernel for the end of all before.
  if (slice.num_rows == 0 ? split + head > 0 : split >= splits) return;
  wait_previous_kernel();
  if (slice.num_rows == 0) return;
  choose_blocks(p, s, row, pair);
  if (p.rows.told.lists != nullptr && split == 0) tell_blocks(p, s, slice, row, head);
  const int keys = (s.count - 1) * row.block + row.position % row.block + 1;
  const int share = ((keys + parts - 1) / parts + 63) / 64 * 64;
  float* partial = p.partial + pair * kMaxParts * (kDim + 2);

  const std::int32_t* pages =
      p.rows.page_table + static_cast<std::int64_t>(slice.table_row) * p.rows.table_stride;
  const auto* q = static_cast<const std::uint16_t*>(p.rows.q) +
                  (static_cast<std::int64_t>(slice.first_row) * p.rows.q_heads + head) * kDim;
  const int column = lane % kLanes * kEach;
  float query[kEach];
#pragma unroll
  for (int i = 0; i < kEach; i += 8) {
    unpack(*reinterpret_cast<const uint4*>(q + column + i),
           reinterpret_cast<float(&)[8]>(query[i]));
  }
#pragma unroll
  for (float& x : query) x *= p.scale_log2;

  // A row's parts are merged in their order: here if all are this block's, else by the last block.
  const bool alone = splits == 1;
  Accumulator<1> total;
  for (int part = split; part < parts; part += splits) {
    const int begin = min(part * share, keys);
    const int end = min(begin + share, keys);
    Accumulator<kEach> acc;
    // A batch is 16, 32 or 64 keys and starts at a multiple of that: it lies in one page.
    const auto token_of = [&](int at) {
      return s.chosen[at / row.block] * row.block + at % row.block;
    };
    int at = begin + warp * kBatch;
    int token = at < end ? token_of(at) : 0;
    int page = __ldg(pages + token / p.kv.page_tokens);
    for (; at < end; at += kDecodeWarps * kBatch) {
      const Batch batch(static_cast<std::int64_t>(page) * p.kv.kv_heads + kv_head, p.kv.page_tokens,
                        token % p.kv.page_tokens, lane);
      // The next batch's page is on its way with this one's keys.
      if (at + kDecodeWarps * kBatch < end) {
        token = token_of(at + kDecodeWarps * kBatch);
        page = __ldg(pages + token / p.kv.page_tokens);
      }
      const auto* k = static_cast<const std::uint8_t*>(p.kv.keys);
      const auto* v = static_cast<const std::uint8_t*>(p.kv.values);
      uint4 packed_k[kSteps], packed_v[kSteps];
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        packed_k[i] = __ldg(reinterpret_cast<const uint4*>(k + batch.offset(i)));
      }
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        packed_v[i] = __ldg(reinterpret_cast<const uint4*>(v + batch.offset(i)));
      }
      std::uint8_t scale_k[kFp8 ? kSteps : 1], scale_v[kFp8 ? kSteps : 1];
      if constexpr (kFp8) {
#pragma unroll
        for (int i = 0; i < kSteps; ++i) {
          scale_k[i] = __ldg(k + batch.scale_offset(i, lane));
          scale_v[i] = __ldg(v + batch.scale_offset(i, lane));
        }
      }
      float score[kSteps];
      float best = acc.max;
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        float key[kEach];
        unpack(packed_k[i], key);
        float dot = 0.0f;
#pragma unroll
        for (int c = 0; c < kEach; ++c) dot = fmaf(query[c], key[c], dot);
#pragma unroll
        for (int d = 1; d < kLanes; d *= 2) dot += __shfl_xor_sync(0xFFFFFFFFu, dot, d);
        if constexpr (kFp8) dot *= scale_f32(scale_k[i]);
        score[i] = at + i * kGroups + lane / kLanes < end ? dot : -INFINITY;
        best = fmaxf(best, score[i]);
      }
      if (best == -INFINITY) continue;  // this lane's keys are all past the end
      const float rescale = exp2_approx(acc.max - best);
      acc.max = best;
      acc.sum *= rescale;
#pragma unroll
      for (int c = 0; c < kEach; ++c) acc.out[c] *= rescale;
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        if (score[i] == -INFINITY) continue;  // values past the end may be NaN
        const float probability = exp2_approx(score[i] - best);
        acc.sum += probability;
        float weight = probability;
        if constexpr (kFp8) weight *= scale_f32(scale_v[i]);
        float value[kEach];
        unpack(packed_v[i], value);
#pragma unroll
        for (int c = 0; c < kEach; ++c) acc.out[c] = fmaf(weight, value[c], acc.out[c]);
      }
    }
    __syncwarp();
#pragma unroll
    for (int d = kLanes; d < 32; d *= 2) {
      float other[kEach];
#pragma unroll
      for (int c = 0; c < kEach; ++c) other[c] = __shfl_xor_sync(0xFFFFFFFFu, acc.out[c], d);
      acc.merge(other, __shfl_xor_sync(0xFFFFFFFFu, acc.max, d),
                __shfl_xor_sync(0xFFFFFFFFu, acc.sum, d));
    }
    if (lane < kLanes) {
#pragma unroll
      for (int c = 0; c < kEach; ++c) s.out[warp][column + c] = acc.out[c];
      if (lane == 0) {
        s.max[warp] = acc.max;
        s.sum[warp] = acc.sum;
      }
    }
    __syncthreads();
    if (threadIdx.x < kDim) {
      Accumulator<1> own;
      for (int w = 0; w < kDecodeWarps; ++w) {
        own.merge(&s.out[w][threadIdx.x], s.max[w], s.sum[w]);
      }
      if (alone) {
        total.merge(own.out, own.max, own.sum);
      } else {
        float* to = partial + part * (kDim + 2);
        to[threadIdx.x] = own.out[0];
        if (threadIdx.x == 0) {
          to[kDim] = own.max;
          to[kDim + 1] = own.sum;
        }
      }
    }
    __syncthreads();  // the next part overwrites what was just merged
  }
  if (!alone) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      s.last = atomicAdd(&p.arrived[pair], 1) == static_cast<std::uint32_t>(splits - 1);
    }
    __syncthreads();
    if (!s.last) return;
    __threadfence();
    if (threadIdx.x < kDim) {
      for (int i = 0; i < parts; ++i) {
        const float* other = partial + i * (kDim + 2);
        const float value = __ldcg(other + threadIdx.x);
        total.merge(&value, __ldcg(other + kDim), __ldcg(other + kDim + 1));
      }
    }
  }
  if (threadIdx.x < kDim) {
    auto* out = static_cast<__nv_bfloat16*>(p.rows.out) +
                (static_cast<std::int64_t>(slice.first_row) * p.rows.q_heads + head) * kDim;
    out[threadIdx.x] = __float2bfloat16_rn(total.out[0] / total.sum);
  }
}

}  // namespace mobius::hopper
