#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/tensor.h"

namespace mobius {

// The operations of kernels/backend.h that go through memory once; shapes are stated there. Every
// row's result depends on that row alone and has the same bits on every instruction set. All throw
// std::invalid_argument before anything is written.

void embed(Tensor out, const Weight& table, std::span<const std::int32_t> tokens, ThreadPool& pool,
           Isa isa);
void rms_norm(Tensor out, Tensor in, const Weight& weight, float eps, ThreadPool& pool, Isa isa);
void silu_mul(Tensor out, Tensor gate_up, ThreadPool& pool, Isa isa);
void gather_rows(Tensor out, Tensor in, std::span<const std::int32_t> rows, ThreadPool& pool);

}  // namespace mobius
