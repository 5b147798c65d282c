#pragma once

// Thin names for the Hopper instructions that the kernels in this folder use. Nothing here decides
// anything; the PTX manual describes each instruction.

#include <cuda_runtime.h>

#include <cstdint>

namespace mobius::hopper {

__device__ __forceinline__ std::uint32_t smem_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

/// Dynamic shared memory from its first multiple of 1024 bytes on, as the 128-byte swizzle needs
/// it.
template <typename T>
__device__ __forceinline__ T& aligned_shared(std::uint8_t* raw) {
  return *reinterpret_cast<T*>(raw + ((1024 - (smem_address(raw) & 1023)) & 1023));
}

// ---- mbarrier -----------------------------------------------------------------------------------

__device__ __forceinline__ void barrier_init(std::uint64_t* bar, std::uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(smem_address(bar)), "r"(count));
}

/// Makes initialised barriers visible to the copy engine. Once, before the block's first barrier.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(std::uint64_t* bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(smem_address(bar)) : "memory");
}

__device__ __forceinline__ void barrier_expect(std::uint64_t* bar, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(smem_address(bar)),
               "r"(bytes)
               : "memory");
}

/// Waits until the phase of the given parity has completed. A fresh barrier counts as having
/// completed a phase of parity 1.
__device__ __forceinline__ void barrier_wait(std::uint64_t* bar, std::uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "wait:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra.uni finished;\n"
      "bra.uni wait;\n"
      "finished:\n"
      "}\n" ::"r"(smem_address(bar)),
      "r"(parity)
      : "memory");
}

// ---- named barriers -----------------------------------------------------------------------------

__device__ __forceinline__ void named_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void named_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- copies -------------------------------------------------------------------------------------

/// Box of a two-dimensional tensor map at (column, row) into shared memory; completes on `bar`.
__device__ __forceinline__ void tma_load(void* dst, const void* map, std::int32_t column,
                                         std::int32_t row, std::uint64_t* bar) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3}], [%4];" ::"r"(smem_address(dst)),
      "l"(map), "r"(column), "r"(row), "r"(smem_address(bar))
      : "memory");
}

__device__ __forceinline__ void prefetch_tensor_map(const void* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

__device__ __forceinline__ void copy_async_16(std::uint32_t dst, const void* src) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(dst), "l"(src) : "memory");
}

__device__ __forceinline__ void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int kPending>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// Between ordinary writes to shared memory and reads of them by wgmma or the copy engine.
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- kernels that overlap the one before them ---------------------------------------------------

/// Lets the next kernel of the stream start its preamble, if it was launched to do so.
__device__ __forceinline__ void release_next_kernel() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

/// Waits until the kernel before has finished and its writes are visible.
__device__ __forceinline__ void wait_previous_kernel() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

/// The head of every kernel in the middle of a chain: nothing of the next one before all of this
/// one has settled, nothing of this one before the last one's results are there.
__device__ __forceinline__ void join_chain() {
  release_next_kernel();
  wait_previous_kernel();
}

// ---- registers and arithmetic -------------------------------------------------------------------

template <int kRegisters>
__device__ __forceinline__ void registers_grow() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <int kRegisters>
__device__ __forceinline__ void registers_shrink() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Two floats rounded to bf16, the first in the low half.
__device__ __forceinline__ std::uint32_t pack_bf16(float low, float high) {
  std::uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

__device__ __forceinline__ void store_matrix_x4(std::uint32_t dst, std::uint32_t a, std::uint32_t b,
                                                std::uint32_t c, std::uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(dst),
               "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

/// Byte offset of a 16-byte chunk in a tile of `rows` rows of 64 bf16 columns, several tiles side
/// by side, as the copy engine's 128-byte swizzle lays it out.
__device__ __forceinline__ std::uint32_t swizzled(int row, int chunk, int rows) {
  return static_cast<std::uint32_t>((chunk >> 3) * rows * 128 + row * 128 +
                                    (((chunk ^ row) & 7) << 4));
}

}  // namespace mobius::hopper
