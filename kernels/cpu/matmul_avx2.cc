#include <immintrin.h>

#include "kernels/cpu/matmul_tile.h"

namespace mobius {
namespace {

/// Adds up the lanes of four sums: first within each half of a register, then the halves.
inline void reduce_sums(__m256 s0, __m256 s1, __m256 s2, __m256 s3, float* out) {
  const __m256 t = _mm256_hadd_ps(_mm256_hadd_ps(s0, s1), _mm256_hadd_ps(s2, s3));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1)));
}

struct F32 {
  using Element = float;
  using Operand = __m256;
  using Sum = __m256;
  static constexpr std::int64_t kStep = 8;
  static constexpr std::int64_t kTileRows = 2;  // 8 sums, 4 rows of w, 1 of x of 16 registers

  static Sum zero() { return _mm256_setzero_ps(); }
  static Operand load(const Element* p) { return _mm256_loadu_ps(p); }
  static Operand load_first(const Element* p, std::int64_t n) {
    alignas(32) Element first[kStep] = {};
    std::memcpy(first, p, static_cast<std::size_t>(n) * sizeof(Element));
    return load(first);
  }
  static Sum dot(Sum sum, Operand x, Operand w) { return _mm256_fmadd_ps(x, w, sum); }
  static void reduce(Sum s0, Sum s1, Sum s2, Sum s3, float* out) {
    reduce_sums(s0, s1, s2, s3, out);
  }
};

/// A bf16 is the upper half of a float: see matmul_avx512.cc.
struct Bf16 {
  struct Operand {
    __m256 even;
    __m256 odd;
  };
  using Element = std::uint16_t;
  using Sum = __m256;
  static constexpr std::int64_t kStep = 16;
  static constexpr std::int64_t kTileRows = 2;

  static Sum zero() { return _mm256_setzero_ps(); }
  static Operand load(const Element* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(bits, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(-65536)))};
  }
  static Operand load_first(const Element* p, std::int64_t n) {
    alignas(32) Element first[kStep] = {};
    std::memcpy(first, p, static_cast<std::size_t>(n) * sizeof(Element));
    return load(first);
  }
  static Sum dot(Sum sum, const Operand& x, const Operand& w) {
    return _mm256_fmadd_ps(x.odd, w.odd, _mm256_fmadd_ps(x.even, w.even, sum));
  }
  static void reduce(Sum s0, Sum s1, Sum s2, Sum s3, float* out) {
    reduce_sums(s0, s1, s2, s3, out);
  }
};

}  // namespace

MatmulKernels matmul_kernels_avx2() {
  return {multiply_panel<Bf16>, multiply_panel<F32>};
}

}  // namespace mobius
