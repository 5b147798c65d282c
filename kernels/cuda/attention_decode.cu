#include <cstddef>

#include "kernels/cuda/attention_decode_merge.cuh"
#include "kernels/cuda/attention_decode_records.cuh"
#include "kernels/cuda/chain.cuh"

// Full attention of one-row slices (decode): keys and values pass through a ring in shared memory
// once, for all query heads of their KV head. A block's last warp copies, four others compute, both
// the same runs (decode_runs.h) in the same order.
//
// What can be read of the step's description and of the cache before the kernel before has finished
// is read: everything but the query and the newest token.

namespace mobius {
namespace decode {
namespace {

template <int D>
constexpr std::size_t shared_bytes(int gqa) {
  return static_cast<std::size_t>(kStages<D> * stage_bytes<D>()) +
         static_cast<std::size_t>(kWarps * gqa * head_pitch<D>()) * sizeof(float);
}

template <int D, bool kFp8>
__device__ void compute_runs(const AttentionCall& call, Ring ring, Meeting& meeting, float* shared,
                             int warp, int lane) {
  Runs runs(call);
  DecodeRun run;
  bool more = runs.next(&run);
  hopper::wait_previous_kernel();
  Queries<D, kFp8> queries;
  if (more) queries.load(call, run, lane);
  std::uint32_t turn = 0;
  while (more) {
    const DecodeRun now = run;
    Fold<D> fold;
    int key = first_key(now);
    for (int part = now.first; part < now.end; ++part) {
      const int end = min((part + 1) * now.part_keys, now.position + 1);
      Sums<D> sums;
      sums.clear();
      for (; key < end; key += kPieceTokens<kFp8>) {
        attend(sums, queries, ring, key, end, warp, lane);
      }
      if (part + 1 == now.end) {
        // The next run's queries are on their way while this one ends.
        more = runs.next(&run);
        if (more) queries.load(call, run, lane);
      }
      end_part<D, kFp8>(call, now, part, sums, fold, meeting, shared, turn, warp, lane);
      turn ^= 1;
    }
    end_run(call, now, fold, meeting);
  }
}

template <int D, bool kFp8>
__global__ void __launch_bounds__(kThreads + 32, 1)
    decode_kernel(const __grid_constant__ AttentionCall call) {
  extern __shared__ __align__(128) std::uint8_t memory[];
  __shared__ std::uint64_t full[kStages<D>];
  __shared__ std::uint64_t empty[kStages<D>];
  __shared__ Meeting meeting;
  // Through a shuffle, so that the compiler knows it to be the same in all lanes.
  const int warp = __shfl_sync(kFullMask, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages<D>; ++i) {
      hopper::barrier_init(full + i, 1);
      hopper::barrier_init(empty + i, kWarps);
    }
    hopper::barrier_init(&meeting.taken, kWarps);
    hopper::barrier_init_fence();
  }
  __syncthreads();
  // What comes next settles beside this where there is room; it waits for the results by itself.
  hopper::release_next_kernel();
  const Ring ring{hopper::smem_address(memory), full, empty, {}};
  if (warp == kWarps) {
    copy_runs<D, kFp8>(call, ring, lane);
  } else {
    auto* shared = reinterpret_cast<float*>(memory + kStages<D> * stage_bytes<D>());
    compute_runs<D, kFp8>(call, ring, meeting, shared, warp, lane);
  }
}

template <int D, bool kFp8>
void launch(const AttentionCall& call, cudaStream_t stream) {
  constexpr auto kKernel = decode_kernel<D, kFp8>;
  static const cudaError_t prepared = [] {
    const cudaError_t error =
        cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared_bytes<D>(kMostHeads)));
    if (error != cudaSuccess) return error;
    return cudaFuncSetAttribute(kKernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                cudaSharedmemCarveoutMaxShared);
  }();
  MOBIUS_CUDA(prepared);
  const dim3 blocks(static_cast<unsigned>(call.decode_blocks));
  const dim3 threads(kThreads + 32);
  const std::size_t shared = shared_bytes<D>(call.gqa);
  if (overlaps_small_kernels()) {
    MOBIUS_CUDA(hopper::launch_overlapped(kKernel, blocks, threads, shared, stream, call));
    return;
  }
  kKernel<<<blocks, threads, shared, stream>>>(call);
  MOBIUS_CUDA_LAUNCHED();
}

}  // namespace
}  // namespace decode

bool takes_decode(const KvShape& kv, std::int32_t heads) {
  return (kv.head_dim == 64 || kv.head_dim == 128) && heads / kv.kv_heads <= decode::kMostHeads;
}

void launch_decode(const AttentionCall& call, std::int32_t head_dim, cudaStream_t stream) {
  if (head_dim == 64) {
    call.fp8 ? decode::launch<64, true>(call, stream) : decode::launch<64, false>(call, stream);
  } else {
    call.fp8 ? decode::launch<128, true>(call, stream) : decode::launch<128, false>(call, stream);
  }
}

}  // namespace mobius
