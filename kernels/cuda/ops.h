#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/tensor.h"

namespace mobius {

// Operations on rows. Tensors point to device memory and have been checked by the caller; each call
// enqueues work and throws std::runtime_error if it cannot.

/// to[count] = from[count]: f32, bf16 or f16 into f32 or bf16, rounded to nearest even.
void launch_convert(void* to, DType to_type, const void* from, DType from_type, std::int64_t count,
                    cudaStream_t stream);

/// out[R, H] f32 = table[tokens[row], H], bf16 or f32.
void launch_embed(Tensor out, const void* table, DType table_type, const std::int32_t* tokens,
                  cudaStream_t stream);

/// out[R, H] f32 or bf16 = in / sqrt(mean(in^2) + eps) * weight[H]; in f32, weight f32 or bf16.
void launch_rms_norm(Tensor out, Tensor in, const void* weight, DType weight_type, float eps,
                     cudaStream_t stream);

/// out[R, F] f32 or bf16 = silu(gate_up[R, :F]) * gate_up[R, F:], gate_up f32.
void launch_silu_mul(Tensor out, Tensor gate_up, cudaStream_t stream);

/// out[n, H] = in[rows[n], H], of any type.
void launch_gather_rows(Tensor out, Tensor in, const std::int32_t* rows, cudaStream_t stream);

}  // namespace mobius
