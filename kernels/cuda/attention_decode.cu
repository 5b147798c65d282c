#include <algorithm>
#include <cstddef>

#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/matvec_kernel.cuh"

// Full attention of one-row slices (decode): keys and values pass through a ring in shared memory
// once, for all query heads of their KV head. A block's last warp copies, four others compute.
//
// A stage of the ring holds the keys of one piece of 64 tokens, the next stage their values. A
// piece is copied in 8 groups of 8 tokens, 16 bytes apart:
//
//   [group r][token i of 8][D]   groups 8 * D * 2 + 16 bytes apart
//
// so that the 8 rows of a matrix that ldmatrix takes, which are one token of each group, lie in
// different banks. Warp w has tokens 2 w and 2 w + 1 of every group: those are the 16 rows of
//
//   scores [16 tokens, 8 heads]  = keys [16, D] * queries [D, 8]          (tokens: first all 2 w)
//   out    [D, 8 heads]         += values^T [D, 16] * probabilities [16, 8]
//
// with mma.sync.m16n8k16. Heads that a group does not have are zero.
//
// What can be read of the step's description and of the cache before the kernel before has finished
// is read: everything but the query and the newest token.

namespace mobius {
namespace {

using hopper::exp2_approx;

constexpr int kWarps = 4;  ///< that compute
constexpr int kThreads = kWarps * 32;
constexpr int kMostHeads = 8;  ///< of a KV head
constexpr int kGroups = 8;
constexpr int kGroupTokens = 8;
constexpr int kPieceTokens = kGroups * kGroupTokens;
static_assert(kDecodeUnit % kPieceTokens == 0);
/// Of 16 KiB each with heads of 128: enough bytes on their way for full bandwidth, and few enough
/// that a product with a ring of 128 KiB can settle beside this.
constexpr int kStages = 4;
constexpr int kComputingBarrier = 1;

template <int D>
constexpr int group_bytes() {
  return kGroupTokens * D * 2;
}
template <int D>
constexpr int group_pitch() {
  return group_bytes<D>() + 16;
}
template <int D>
constexpr int stage_bytes() {
  return kGroups * group_pitch<D>();
}
/// Floats from one head's sums to the next one's, of one warp: no bank conflicts.
template <int D>
constexpr int head_pitch() {
  return D + 4;
}
template <int D>
constexpr std::size_t shared_bytes(int gqa) {
  return static_cast<std::size_t>(kStages * stage_bytes<D>()) +
         static_cast<std::size_t>(kWarps * gqa * head_pitch<D>()) * sizeof(float);
}

/// A part of a row's keys, for one KV head.
struct Part {
  int single;  ///< index among one-row slices
  std::int64_t row;
  int slice;
  int kv_head;
  int index;  ///< among the row's parts
  int count;  ///< of the row's parts
  int position;
  int begin;  ///< keys
  int end;
};

/// The parts that this block takes: every gridDim.x-th of the step's.
class Parts {
 public:
  __device__ explicit Parts(const AttentionCall& call)
      : call_(call),
        next_(static_cast<int>(blockIdx.x)),
        all_(call.step.single_parts[call.single] * call.kv_heads) {}

  /// Whether there is another one, which `part` then is.
  __device__ bool next(Part* part) {
    for (; next_ < all_; next_ += static_cast<int>(gridDim.x)) {
      const int item = next_ / call_.kv_heads;
      int low = 0;
      int high = call_.single - 1;
      while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (call_.step.single_parts[middle] <= item) {
          low = middle;
        } else {
          high = middle - 1;
        }
      }
      part->single = low;
      part->row = call_.step.single_rows[low];
      part->slice = call_.step.row_slice[part->row];
      if (block_at(call_, part->slice) > 0) continue;
      part->kv_head = next_ % call_.kv_heads;
      part->index = item - call_.step.single_parts[low];
      part->count = call_.step.single_parts[low + 1] - call_.step.single_parts[low];
      part->position = call_.step.first_position[part->slice];
      const int length = decode_part_keys(part->position + 1, call_.kv_heads);
      part->begin = part->index * length;
      part->end = min(part->begin + length, part->position + 1);
      next_ += static_cast<int>(gridDim.x);
      return true;
    }
    return false;
  }

 private:
  const AttentionCall& call_;
  int next_;
  int all_;
};

/// The copying warp.
template <int D>
__device__ void copy_parts(const AttentionCall& call, std::uint8_t* ring, std::uint64_t* full,
                           std::uint64_t* empty, int lane) {
  const std::uint64_t policy = matvec::evict_first_policy();
  const std::uint32_t base = hopper::smem_address(ring);
  matvec::Slot slot;
  // A step with longer slices may append to pages that a slice of one row shares.
  bool waited = false;
  const auto wait = [&] {
    hopper::wait_previous_kernel();
    asm volatile("fence.proxy.async.global;" ::: "memory");
    waited = true;
  };
  if (!call.early_copies) wait();
  Parts parts(call);
  Part part;
  while (parts.next(&part)) {
    const std::int32_t* pages = call.step.pages + std::int64_t{part.slice} * call.step.max_pages;
    for (int key = part.begin; key < part.end; key += kPieceTokens) {
      const int groups = min(kGroups, (part.end - key + kGroupTokens - 1) / kGroupTokens);
      // Pages are multiples of 16 tokens, parts begin at multiples of 64: a group lies in one page.
      const int own = key + min(lane, groups - 1) * kGroupTokens;
      const int own_page = __ldg(pages + own / call.page_tokens);
      // In groups, which 32 bits can count. Each lane finds one's place, for both operands.
      const int own_place =
          (own_page * call.kv_heads + part.kv_head) * (call.page_tokens / kGroupTokens) +
          own % call.page_tokens / kGroupTokens;
      int places[kGroups];
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        places[group] = __shfl_sync(kFullMask, own_place, group);
      }
      if (!waited && key + kPieceTokens > part.position) wait();
#pragma unroll
      for (int operand = 0; operand < 2; ++operand) {
        const std::uint16_t* cells = operand == 0 ? call.keys : call.values;
        hopper::barrier_wait(empty + slot.index, slot.turn ^ 1);
        __syncwarp();
        matvec::announce(full + slot.index, static_cast<std::uint32_t>(groups * group_bytes<D>()));
        const std::uint32_t to = base + static_cast<std::uint32_t>(slot.index * stage_bytes<D>());
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          if (group >= groups) break;
          const std::uint16_t* from = cells + std::int64_t{places[group]} * (kGroupTokens * D);
          matvec::copy_bulk(to + static_cast<std::uint32_t>(group * group_pitch<D>()), from,
                            static_cast<std::uint32_t>(group_bytes<D>()), full + slot.index,
                            policy);
        }
        slot.next(kStages);
      }
    }
  }
}

__device__ __forceinline__ void load_transposed_x4(std::uint32_t (&to)[4], std::uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from));
}

/// Of an 8 x 8 matrix of which each lane holds two neighbours in a row.
__device__ __forceinline__ std::uint32_t transposed(std::uint32_t pair) {
  std::uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
  return result;
}

/// The query heads of a part's KV head as the n side of a product: lane / 4 is the head.
template <int D>
struct Queries {
  std::uint32_t b[D / 16][2];

  __device__ void load(const AttentionCall& call, const Part& part, int lane) {
    const int gqa = call.heads / call.kv_heads;
    const int head = lane / 4;
    const std::uint16_t* from =
        call.q + (part.row * call.heads + part.kv_head * gqa + head) * D + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < D / 16; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        b[j][half] =
            head < gqa ? *reinterpret_cast<const std::uint32_t*>(from + 16 * j + 8 * half) : 0;
      }
    }
  }
};

/// What a warp has summed up: dimensions 16 j + lane / 4 and 8 more, heads 2 (lane % 4) and the
/// next. Maxima are in units of log2; sums are this lane's share.
template <int D>
struct Sums {
  float out[D / 16][4];
  float maximum[2];
  float sum[2];

  __device__ void clear() {
#pragma unroll
    for (auto& tile : out) tile[0] = tile[1] = tile[2] = tile[3] = 0.0F;
    maximum[0] = maximum[1] = -INFINITY;
    sum[0] = sum[1] = 0.0F;
  }

  /// Turns scores (tokens lane / 4 of the even and odd tokens, this lane's heads) into the n side
  /// of the product with values.
  __device__ void weigh(float (&score)[4], std::uint32_t (&probabilities)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float best = fmaxf(score[h], score[2 + h]);
#pragma unroll
      for (int d = 4; d < 32; d *= 2) best = fmaxf(best, __shfl_xor_sync(kFullMask, best, d));
      best = fmaxf(best, maximum[h]);
      const float shift = best == -INFINITY ? 0.0F : best;
      const float rescale = exp2_approx(maximum[h] - shift);
      maximum[h] = best;
      sum[h] *= rescale;
#pragma unroll
      for (auto& tile : out) {
        tile[h] *= rescale;
        tile[2 + h] *= rescale;
      }
      score[h] = exp2_approx(score[h] - shift);
      score[2 + h] = exp2_approx(score[2 + h] - shift);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t pair = pack_bf16(score[2 * i], score[2 * i + 1]);
      sum[0] += low_bf16(pair);
      sum[1] += high_bf16(pair);
      probabilities[i] = transposed(pair);
    }
  }
};

/// Adds a piece's 16 tokens of this warp. `token`: the piece's first of this warp, 2 * warp from
/// its start; those at `end` and after are not there.
template <int D>
__device__ __forceinline__ void attend(Sums<D>& sums, const Queries<D>& queries, std::uint32_t ring,
                                       std::uint64_t* full, std::uint64_t* empty,
                                       matvec::Slot& slot, int token, int end, int warp, int lane) {
  const float scale = softmax_scale<D>();
  constexpr std::uint32_t kPitch = group_pitch<D>();
  const auto stage = [&] {
    return ring + static_cast<std::uint32_t>(slot.index * stage_bytes<D>());
  };
  const auto release = [&] {
    __syncwarp();
    if (lane == 0) hopper::barrier_arrive(empty + slot.index);
    slot.next(kStages);
  };
  // Lanes' rows for ldmatrix: the group, which of the two tokens, which 8 of 16 dimensions.
  const auto lane_row = [&](int second, int half) {
    return static_cast<std::uint32_t>(lane % 8) * kPitch +
           static_cast<std::uint32_t>((2 * warp + second) * D * 2 + half * 16);
  };

  hopper::barrier_wait(full + slot.index, slot.turn);
  __syncwarp();
  float chains[2][4] = {};
  const std::uint32_t keys = stage() + lane_row(lane / 8 % 2, lane / 16);
#pragma unroll
  for (int j = 0; j < D / 16; ++j) {
    std::uint32_t a[4];
    matvec::load_matrix_x4(a, keys + static_cast<std::uint32_t>(j) * 32);
    matvec::multiply_add(chains[j % 2], a, queries.b[j][0], queries.b[j][1]);
  }
  release();
  float score[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool there = token + lane / 4 * kGroupTokens + i / 2 < end;
    score[i] = there ? (chains[0][i] + chains[1][i]) * scale : -INFINITY;
  }
  std::uint32_t probabilities[2];
  sums.weigh(score, probabilities);

  hopper::barrier_wait(full + slot.index, slot.turn);
  __syncwarp();
  // What lies where no token is may be NaN: the tokens of groups 2 (lane % 4) and the next.
  std::uint32_t there[2];
#pragma unroll
  for (int second = 0; second < 2; ++second) {
    const int first = token + lane % 4 * 2 * kGroupTokens + second;
    there[second] =
        (first < end ? 0x0000ffffU : 0U) | (first + kGroupTokens < end ? 0xffff0000U : 0U);
  }
  const std::uint32_t values = stage() + lane_row(lane / 16, lane / 8 % 2);
#pragma unroll
  for (int j = 0; j < D / 16; ++j) {
    std::uint32_t a[4];
    load_transposed_x4(a, values + static_cast<std::uint32_t>(j) * 32);
    a[0] &= there[0];
    a[1] &= there[0];
    a[2] &= there[1];
    a[3] &= there[1];
    matvec::multiply_add(sums.out[j], a, probabilities[0], probabilities[1]);
  }
  release();
}

__device__ __forceinline__ void sync_computing() {
  hopper::named_sync(kComputingBarrier, kThreads);
}

__device__ __forceinline__ void add_scaled(float4& to, float weight, const float4& value) {
  to.x = fmaf(weight, value.x, to.x);
  to.y = fmaf(weight, value.y, to.y);
  to.z = fmaf(weight, value.z, to.z);
  to.w = fmaf(weight, value.w, to.w);
}

__device__ __forceinline__ void store_out(const AttentionCall& call, std::int64_t row, int head,
                                          int d, int head_dim, const float4& value, float sum) {
  uint2 packed;
  packed.x = pack_bf16(value.x / sum, value.y / sum);
  packed.y = pack_bf16(value.z / sum, value.w / sum);
  *reinterpret_cast<uint2*>(call.out + (row * call.heads + head) * head_dim + d) = packed;
}

struct Meeting {
  float states[kWarps][kMostHeads][2];  ///< maximum and sum of each warp and head
  float sums[kMostHeads];               ///< of a whole row
  bool last;                            ///< all other parts of the row are there
};

/// The last of a row's parts to arrive merges all of them, in their order. `weights`: shared,
/// [gqa][parts].
template <int D>
__device__ void merge_parts(const AttentionCall& call, const Part& part, Meeting& meeting,
                            float* weights, int warp, int lane) {
  const int gqa = call.heads / call.kv_heads;
  const std::int64_t first =
      (std::int64_t{part.single} * call.heads + part.kv_head * gqa) * kMaxSpans;
  for (int h = warp; h < gqa; h += kWarps) {
    const float* states = call.workspace.partial_state + 2 * (first + h * kMaxSpans);
    float best = -INFINITY;
    for (int i = lane; i < part.count; i += 32) best = fmaxf(best, __ldcg(states + 2 * i));
#pragma unroll
    for (int d = 1; d < 32; d *= 2) best = fmaxf(best, __shfl_xor_sync(kFullMask, best, d));
    float sum = 0.0F;
    for (int i = lane; i < part.count; i += 32) {
      const float weight = exp2_approx(__ldcg(states + 2 * i) - best);
      weights[h * part.count + i] = weight;
      sum = fmaf(weight, __ldcg(states + 2 * i + 1), sum);
    }
#pragma unroll
    for (int d = 1; d < 32; d *= 2) sum += __shfl_xor_sync(kFullMask, sum, d);
    if (lane == 0) meeting.sums[h] = sum;
  }
  sync_computing();
  for (int at = static_cast<int>(threadIdx.x); at < gqa * (D / 4); at += kThreads) {
    const int h = at / (D / 4);
    const int d = at % (D / 4) * 4;
    const float* values = call.workspace.partial_out + (first + h * kMaxSpans) * D + d;
    float4 value = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
#pragma unroll 8
    for (int i = 0; i < part.count; ++i) {
      add_scaled(value, weights[h * part.count + i],
                 __ldcg(reinterpret_cast<const float4*>(values + std::int64_t{i} * D)));
    }
    store_out(call, part.row, part.kv_head * gqa + h, d, D, value, meeting.sums[h]);
  }
  sync_computing();  // what comes next overwrites the weights
}

/// Merges the warps' sums of a part, in their order, and writes them, or the row where the part is
/// its last to arrive. `outs`: shared, [warp][head], head_pitch<D>() floats each.
template <int D>
__device__ void finish_part(const AttentionCall& call, const Part& part, Sums<D>& sums,
                            Meeting& meeting, float* outs, int warp, int lane) {
  const int gqa = call.heads / call.kv_heads;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int d = 4; d < 32; d *= 2) sums.sum[h] += __shfl_xor_sync(kFullMask, sums.sum[h], d);
    const int head = lane % 4 * 2 + h;
    if (head >= gqa) continue;
    float* own = outs + (warp * gqa + head) * head_pitch<D>() + lane / 4;
#pragma unroll
    for (int j = 0; j < D / 16; ++j) {
      own[16 * j] = sums.out[j][h];
      own[16 * j + 8] = sums.out[j][2 + h];
    }
    if (lane / 4 == 0) {
      meeting.states[warp][head][0] = sums.maximum[h];
      meeting.states[warp][head][1] = sums.sum[h];
    }
  }
  sync_computing();
  for (int at = static_cast<int>(threadIdx.x); at < gqa * (D / 4); at += kThreads) {
    const int h = at / (D / 4);
    const int d = at % (D / 4) * 4;
    // A part has a key at least, so that some warp has a maximum.
    float best = -INFINITY;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) best = fmaxf(best, meeting.states[w][h][0]);
    float4 value = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    float sum = 0.0F;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float weight = exp2_approx(meeting.states[w][h][0] - best);
      add_scaled(value, weight,
                 *reinterpret_cast<const float4*>(outs + (w * gqa + h) * head_pitch<D>() + d));
      sum = fmaf(weight, meeting.states[w][h][1], sum);
    }
    const int head = part.kv_head * gqa + h;
    if (part.count == 1) {
      store_out(call, part.row, head, d, D, value, sum);
      continue;
    }
    const std::int64_t to =
        (std::int64_t{part.single} * call.heads + head) * kMaxSpans + part.index;
    *reinterpret_cast<float4*>(call.workspace.partial_out + to * D + d) = value;
    if (d == 0) {
      call.workspace.partial_state[2 * to] = best;
      call.workspace.partial_state[2 * to + 1] = sum;
    }
  }
  if (part.count == 1) {
    sync_computing();  // what comes next overwrites the sums
    return;
  }
  __threadfence();
  sync_computing();
  if (threadIdx.x == 0) {
    // Counts up to the last, which leaves 0 for the next kernel.
    const auto last = static_cast<unsigned>(part.count - 1);
    meeting.last = atomicInc(call.workspace.arrived + part.single * call.kv_heads + part.kv_head,
                             last) == last;
    __threadfence();
  }
  sync_computing();
  if (meeting.last) merge_parts<D>(call, part, meeting, outs, warp, lane);
}

template <int D>
__device__ void compute_parts(const AttentionCall& call, std::uint8_t* ring, std::uint64_t* full,
                              std::uint64_t* empty, Meeting& meeting, int warp, int lane) {
  auto* outs = reinterpret_cast<float*>(ring + kStages * stage_bytes<D>());
  Parts parts(call);
  Part part;
  bool more = parts.next(&part);
  hopper::wait_previous_kernel();
  Queries<D> queries;
  if (more) queries.load(call, part, lane);
  matvec::Slot slot;
  const std::uint32_t base = hopper::smem_address(ring);
  while (more) {
    Sums<D> sums;
    sums.clear();
    for (int key = part.begin; key < part.end; key += kPieceTokens) {
      attend(sums, queries, base, full, empty, slot, key + 2 * warp, part.end, warp, lane);
    }
    // The next part's queries are on their way while this one ends.
    const Part done = part;
    more = parts.next(&part);
    if (more) queries.load(call, part, lane);
    finish_part(call, done, sums, meeting, outs, warp, lane);
  }
}

template <int D>
__global__ void __launch_bounds__(kThreads + 32, 1)
    decode_kernel(const __grid_constant__ AttentionCall call) {
  extern __shared__ __align__(128) std::uint8_t ring[];
  __shared__ std::uint64_t full[kStages];
  __shared__ std::uint64_t empty[kStages];
  __shared__ Meeting meeting;
  // Through a shuffle, so that the compiler knows it to be the same in all lanes.
  const int warp = __shfl_sync(kFullMask, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      hopper::barrier_init(full + i, 1);
      hopper::barrier_init(empty + i, kWarps);
    }
    hopper::barrier_init_fence();
  }
  __syncthreads();
  // What comes next settles beside this where there is room; it waits for the results by itself.
  hopper::release_next_kernel();
  if (warp == kWarps) {
    copy_parts<D>(call, ring, full, empty, lane);
  } else {
    compute_parts<D>(call, ring, full, empty, meeting, warp, lane);
  }
}

int multiprocessors() {
  static const int count = [] {
    int device = 0;
    int found = 0;
    MOBIUS_CUDA(cudaGetDevice(&device));
    MOBIUS_CUDA(cudaDeviceGetAttribute(&found, cudaDevAttrMultiProcessorCount, device));
    return found;
  }();
  return count;
}

template <int D>
void launch(const AttentionCall& call, cudaStream_t stream) {
  static const cudaError_t prepared = [] {
    const cudaError_t error =
        cudaFuncSetAttribute(decode_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared_bytes<D>(kMostHeads)));
    if (error != cudaSuccess) return error;
    return cudaFuncSetAttribute(decode_kernel<D>, cudaFuncAttributePreferredSharedMemoryCarveout,
                                cudaSharedmemCarveoutMaxShared);
  }();
  MOBIUS_CUDA(prepared);
  const dim3 blocks(static_cast<unsigned>(multiprocessors()));
  const dim3 threads(kThreads + 32);
  const std::size_t shared = shared_bytes<D>(call.heads / call.kv_heads);
  if (overlaps_small_kernels()) {
    MOBIUS_CUDA(hopper::launch_overlapped(decode_kernel<D>, blocks, threads, shared, stream, call));
    return;
  }
  decode_kernel<D><<<blocks, threads, shared, stream>>>(call);
  MOBIUS_CUDA_LAUNCHED();
}

}  // namespace

bool takes_decode(const KvShape& kv, std::int32_t heads) {
  return (kv.head_dim == 64 || kv.head_dim == 128) && heads / kv.kv_heads <= kMostHeads;
}

void launch_decode(const AttentionCall& call, std::int32_t head_dim, cudaStream_t stream) {
  if (head_dim == 64) return launch<64>(call, stream);
  launch<128>(call, stream);
}

}  // namespace mobius
