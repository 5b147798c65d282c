#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/hopper/ptx.cuh"

// Instructions of the kernels that stream weights or keys through a ring in shared memory.

namespace mobius::matvec {

/// For data that is read once: the first to leave the L2 cache.
__device__ __forceinline__ std::uint64_t evict_first_policy() {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// A warp's, carried out by one lane. The lane is chosen inside the instruction, because in a branch
// that one lane takes the compiler cannot use uniform registers, which bulk copies take their
// operands from, and makes a loop of every copy (45 cycles instead of 4).

__device__ __forceinline__ void announce(std::uint64_t* bar, std::uint32_t bytes) {
  asm volatile(
      "{\n.reg .pred chosen;\nelect.sync _|chosen, 0xffffffff;\n"
      "@chosen mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n}" ::"r"(
          hopper::smem_address(bar)),
      "r"(bytes)
      : "memory");
}

__device__ __forceinline__ void copy_bulk(std::uint32_t to, const void* from, std::uint32_t bytes,
                                          std::uint64_t* bar) {
  asm volatile(
      "{\n.reg .pred chosen;\nelect.sync _|chosen, 0xffffffff;\n"
      "@chosen cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1], %2, [%3];\n}" ::"r"(to),
      "l"(from), "r"(bytes), "r"(hopper::smem_address(bar))
      : "memory");
}

__device__ __forceinline__ void copy_bulk(std::uint32_t to, const void* from, std::uint32_t bytes,
                                          std::uint64_t* bar, std::uint64_t policy) {
  asm volatile(
      "{\n.reg .pred chosen;\nelect.sync _|chosen, 0xffffffff;\n"
      "@chosen cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1], %2, [%3], %4;\n}" ::"r"(to),
      "l"(from), "r"(bytes), "r"(hopper::smem_address(bar)), "l"(policy)
      : "memory");
}

// Each thread's.

__device__ __forceinline__ void copy_vector(std::uint32_t to, const void* from,
                                            std::uint64_t policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "l"(policy)
               : "memory");
}

/// Arrives on `bar` when all copies that this thread has started with copy_vector are there.
__device__ __forceinline__ void arrive_with_copies(std::uint64_t* bar) {
  asm volatile(
      "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(hopper::smem_address(bar))
      : "memory");
}

__device__ __forceinline__ void load_matrix_x4(std::uint32_t (&to)[4], std::uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from));
}

/// c[16, 8] += a[16, 16] * b[16, 8].
__device__ __forceinline__ void multiply_add(float (&c)[4], const std::uint32_t (&a)[4],
                                             std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace mobius::matvec
