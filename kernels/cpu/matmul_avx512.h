#pragma once

// What matmul_avx512.cc and matmul_avx512_bf16.cc have in common; for them alone.

// GCC 12's own AVX-512 intrinsics set it off wherever they are inlined (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include "kernels/cpu/matmul_tile.h"

namespace mobius {
namespace {

/// Adds up the lanes of four sums: first within each quarter of a register, four sums at a time,
/// then the quarters.
inline void reduce_sums(__m512 s0, __m512 s1, __m512 s2, __m512 s3, float* out) {
  const __m512 t01 = _mm512_add_ps(_mm512_unpacklo_ps(s0, s1), _mm512_unpackhi_ps(s0, s1));
  const __m512 t23 = _mm512_add_ps(_mm512_unpacklo_ps(s2, s3), _mm512_unpackhi_ps(s2, s3));
  const __m512 t = _mm512_add_ps(_mm512_shuffle_ps(t01, t23, _MM_SHUFFLE(1, 0, 1, 0)),
                                 _mm512_shuffle_ps(t01, t23, _MM_SHUFFLE(3, 2, 3, 2)));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(t), _mm512_extractf32x8_ps(t, 1));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

struct F32Avx512 {
  using Element = float;
  using Operand = __m512;
  using Sum = __m512;
  static constexpr std::int64_t kStep = 16;
  static constexpr std::int64_t kTileRows = 6;  // 24 sums, 4 rows of w, 1 of x

  static Sum zero() { return _mm512_setzero_ps(); }
  static Operand load(const Element* p) { return _mm512_loadu_ps(p); }
  static Operand load_first(const Element* p, std::int64_t n) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << n) - 1U), p);
  }
  static Sum dot(Sum sum, Operand x, Operand w) { return _mm512_fmadd_ps(x, w, sum); }
  static void reduce(Sum s0, Sum s1, Sum s2, Sum s3, float* out) {
    reduce_sums(s0, s1, s2, s3, out);
  }
};

}  // namespace
}  // namespace mobius
