#include "kernels/cpu/convert.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>

#include "kernels/cpu/row_kernels.h"

namespace mobius {
namespace {

// Converted by way of a float buffer of this many elements: on the stack and in cache.
constexpr std::int64_t kChunk = 1024;
constexpr std::int64_t kChunksPerTask = 64;

void read_chunk(float* out, const std::byte* in, DType from, std::int64_t n,
                const RowKernels& kernels) {
  const std::size_t bytes = static_cast<std::size_t>(n) * size_of(from);
  if (from == DType::f32) {
    std::memcpy(out, in, bytes);
    return;
  }
  std::uint16_t bits[kChunk];
  std::memcpy(bits, in, bytes);
  if (from == DType::bf16) {
    kernels.bf16_to_f32(out, bits, n);
  } else {
    for (std::int64_t i = 0; i < n; ++i) out[i] = half_to_float(bits[i]);
  }
}

void write_chunk(std::byte* out, DType to, const float* in, std::int64_t n,
                 const RowKernels& kernels) {
  const std::size_t bytes = static_cast<std::size_t>(n) * size_of(to);
  if (to == DType::f32) {
    std::memcpy(out, in, bytes);
    return;
  }
  std::uint16_t bits[kChunk];
  if (to == DType::bf16) {
    kernels.f32_to_bf16(bits, in, n);
  } else {
    for (std::int64_t i = 0; i < n; ++i) bits[i] = float_to_half(in[i]);
  }
  std::memcpy(out, bits, bytes);
}

}  // namespace

float half_to_float(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000U) << 16;
  const std::uint32_t exponent = bits >> 10 & 0x1FU;
  const std::uint32_t fraction = bits & 0x3FFU;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24
    const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
    return sign != 0 ? -magnitude : magnitude;
  }
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000U | fraction << 13);
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

std::uint16_t float_to_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16 & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  std::uint32_t half = 0;
  if (magnitude > 0x7F800000U) {
    half = 0x7E00U;
  } else if (magnitude >= 0x477FF000U) {  // 65520: halfway to 2^16, and above
    half = 0x7C00U;
  } else if (magnitude >= 0x38800000U) {  // 2^-14: normal
    half = (magnitude - 0x38000000U + 0xFFFU + (magnitude >> 13 & 1U)) >> 13;
  } else {
    // Subnormal: adding 0.5 makes the processor round to a multiple of 2^-24.
    half = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3F000000U;
  }
  return static_cast<std::uint16_t>(sign | half);
}

void convert(void* out, DType to, const void* in, DType from, std::int64_t n, ThreadPool& pool,
             Isa isa) {
  const RowKernels& kernels = row_kernels(isa);
  const std::int64_t task_size = kChunk * kChunksPerTask;
  pool.parallel_for((n + task_size - 1) / task_size, [&](std::int64_t task, int) {
    const std::int64_t end = std::min(n, (task + 1) * task_size);
    float values[kChunk];
    for (std::int64_t start = task * task_size; start < end; start += kChunk) {
      const std::int64_t count = std::min(kChunk, end - start);
      const auto offset = [&](DType dtype) {
        return start * static_cast<std::int64_t>(size_of(dtype));
      };
      read_chunk(values, static_cast<const std::byte*>(in) + offset(from), from, count, kernels);
      write_chunk(static_cast<std::byte*>(out) + offset(to), to, values, count, kernels);
    }
  });
}

}  // namespace mobius
