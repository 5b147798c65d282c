#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/fp8.h"
#include "kernels/tensor.h"

namespace mobius {

// Products of few rows, as in decode: out[R, N] = in[R, K] * weight[N, K]^T with R of 1 to 16.
// Their time is that of reading the weight once, so all that this kernel does is keep device memory
// busy: one block per multiprocessor, a ring of copies in shared memory that runs ahead of the
// tensor cores by as much as fits (kMatvecRingBytes).
//
// Bits: element [r, n] is one chain of mma.sync.m16n8k16 over ascending k, in one accumulator that
// starts at zero. Neither R nor the other rows nor the grid enter into it, no sum is ever split,
// and nothing is added atomically. The library's products of any number of rows have the same bits
// wherever CudaMatmul found them equal (matmul.h), so there is no seam at R = 16 either.
//
// Overlap: the kernel is launched so that it may settle while the kernel before it in the stream
// still runs (programmatic dependent launch). Until that one has finished it reads the weight and
// nothing else. So a weight must not be written by the operation just before a product that reads
// it. Works inside stream capture.

/// The most rows of one product.
constexpr std::int64_t kMatvecMostRows = 16;

/// Whether `launch_matvec` takes a product: 1 <= rows <= 16, n >= 1, k a positive multiple of 16,
/// n and k at most 2^24. Fewer than 132 * 16 columns of output leave multiprocessors without work.
bool matvec_takes(std::int64_t rows, std::int64_t n, std::int64_t k);

/// Enqueues out[R, N] (f32 or bf16) = in[R, K] * weight[N, K]^T, or += where `accumulate` (f32
/// only). `in` and `weight` are bf16, start at multiples of 16 bytes and do not overlap `out`.
/// Throws std::invalid_argument where the product is not one of those above, std::runtime_error
/// where it could not be launched. Any thread, with its own stream.
void launch_matvec(Tensor out, Tensor in, const void* weight, bool accumulate, cudaStream_t stream);

/// Rows that read an fp8 weight once.
constexpr std::int64_t kMatvecFp8Rows = 64;

/// The same with an fp8 weight and any number of rows from 1, 64 at a time. Codes become bf16 on
/// their way to the tensor cores and sums are multiplied with scales, which are powers of two: the
/// bits are those of `launch_matvec` with the weight's values in bf16.
void launch_matvec_fp8(Tensor out, Tensor in, const Fp8Weight& weight, bool accumulate,
                       cudaStream_t stream);

}  // namespace mobius
