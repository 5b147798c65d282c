#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"

namespace mobius {

/// Loops over one row, written so that the compiler vectorises them, compiled once for each
/// instruction set. Sums go to 16 lanes whatever the instruction set, and products are never fused
/// with sums, so that the results' bits are the same on all of them. bf16 values are raw bits.
struct RowKernels {
  void (*bf16_to_f32)(float* out, const std::uint16_t* in, std::int64_t n);
  void (*f32_to_bf16)(std::uint16_t* out, const float* in, std::int64_t n);

  /// in / sqrt(mean(in^2) + eps) * weight; weight as f32 or bf16, out as f32 or bf16: the pointer
  /// of the other type is null.
  void (*rms_norm)(float* out, std::uint16_t* out_bf16, const float* in, const float* weight,
                   const std::uint16_t* weight_bf16, std::int64_t n, float eps);

  /// gate / (1 + exp(-gate)) * up.
  void (*silu_mul)(float* out, std::uint16_t* out_bf16, const float* gate, const float* up,
                   std::int64_t n);

  /// Makes values comparable, NaN to -infinity and +infinity to the greatest float, and returns the
  /// greatest (-infinity where n is 0).
  float (*clean_and_max)(float* values, std::int64_t n);

  /// sum of exp((value - highest) * scale), each exp in f32 (relative error about 1e-7), summed in
  /// f64; value <= highest.
  double (*sum_exp)(const float* values, std::int64_t n, float highest, float scale);
};

const RowKernels& row_kernels(Isa isa);

const RowKernels& row_kernels_generic();
#if defined(__x86_64__)
const RowKernels& row_kernels_avx2();
const RowKernels& row_kernels_avx512();
#endif

}  // namespace mobius
