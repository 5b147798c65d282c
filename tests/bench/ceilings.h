#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/backend.h"

namespace mobius {

/// Bytes per second at which `threads` threads together read `data` once, from memory if it is far
/// larger than the caches.
double read_bandwidth(std::span<const std::byte> data, std::int32_t threads);

/// Floating point operations per second of `threads` threads that do nothing but the widest
/// multiply-add this processor has for bf16 inputs (f32 where it has none), all in registers. 0
/// where the processor has neither AVX-512 nor AVX2.
double peak_flops(std::int32_t threads);

/// Operations per second of the backend's own product of [rows, weight.cols] by `weight`, repeated
/// for about a second.
double matmul_flops(Backend& backend, const Weight& weight, DType compute, std::int64_t rows);

/// Bytes of this process in physical memory, mapped files included.
std::size_t resident_bytes();

}  // namespace mobius
