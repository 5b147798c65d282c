#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/tensor.h"

namespace mobius {

/// The value of a half-precision number given by its bits; exact.
float half_to_float(std::uint16_t bits);
/// The nearest half-precision number, ties to even; overflow becomes infinity, NaN a quiet NaN.
std::uint16_t float_to_half(float value);

/// out[n] of type `to` = in[n] of type `from`, rounded to nearest even. Neither needs any
/// alignment; they must not overlap.
void convert(void* out, DType to, const void* in, DType from, std::int64_t n, ThreadPool& pool,
             Isa isa);

}  // namespace mobius
