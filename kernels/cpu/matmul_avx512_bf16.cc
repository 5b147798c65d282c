#include "kernels/cpu/matmul_avx512.h"

namespace mobius {
namespace {

struct Bf16 {
  using Element = std::uint16_t;
  using Operand = __m512bh;
  using Sum = __m512;
  static constexpr std::int64_t kStep = 32;
  static constexpr std::int64_t kTileRows = 6;  // 24 sums, 4 rows of w, 1 of x

  static Sum zero() { return _mm512_setzero_ps(); }
  static Operand load(const Element* p) { return reinterpret_cast<Operand>(_mm512_loadu_si512(p)); }
  static Operand load_first(const Element* p, std::int64_t n) {
    return reinterpret_cast<Operand>(_mm512_maskz_loadu_epi16((1U << n) - 1U, p));
  }
  static Sum dot(Sum sum, Operand x, Operand w) { return _mm512_dpbf16_ps(sum, x, w); }
  static void reduce(Sum s0, Sum s1, Sum s2, Sum s3, float* out) {
    reduce_sums(s0, s1, s2, s3, out);
  }
};

}  // namespace

MatmulKernels matmul_kernels_avx512_bf16() {
  return {multiply_panel<Bf16>, multiply_panel<F32Avx512>};
}

}  // namespace mobius
