#include "kernels/cpu/matmul_avx512.h"

#include <immintrin.h>

namespace mobius {
namespace {

/// bf16 without an instruction for it: a bf16 is the upper half of a float, so elements at odd
/// places are floats once the lower half is masked, and those at even places once shifted up.
struct Bf16 {
  struct Operand {
    __m512 even;
    __m512 odd;
  };
  using Element = std::uint16_t;
  using Sum = __m512;
  static constexpr std::int64_t kStep = 32;
  static constexpr std::int64_t kTileRows = 5;  // 20 sums, 8 registers of w, 2 of x, the mask

  static Sum zero() { return _mm512_setzero_ps(); }
  static Operand split(__m512i bits) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(-65536)))};
  }
  static Operand load(const Element* p) { return split(_mm512_loadu_si512(p)); }
  static Operand load_first(const Element* p, std::int64_t n) {
    return split(_mm512_maskz_loadu_epi16((1U << n) - 1U, p));
  }
  static Sum dot(Sum sum, const Operand& x, const Operand& w) {
    return _mm512_fmadd_ps(x.odd, w.odd, _mm512_fmadd_ps(x.even, w.even, sum));
  }
  static void reduce(Sum s0, Sum s1, Sum s2, Sum s3, float* out) {
    reduce_sums(s0, s1, s2, s3, out);
  }
};

}  // namespace

MatmulKernels matmul_kernels_avx512() {
  return {multiply_panel<Bf16>, multiply_panel<F32Avx512>};
}

}  // namespace mobius
