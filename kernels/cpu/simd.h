#pragma once

// One vector vocabulary over AVX-512 with BF16, AVX-512, AVX2 with FMA, and GCC's portable vectors
// (SSE2, NEON). Which one follows from the flags of the including file, so include this only from
// the files named *_<isa>.cc.
//
// Everything is in an anonymous namespace: were it not, the linker would keep one copy of a
// function that was compiled under several flags, perhaps the one that this processor cannot run.
// For the same reason these files call no inline function of the standard library.
//
// Vec is kWidth floats. Cells is kWidth cells of 4 bytes, ready to multiply: one f32 each, or a
// pair of bf16 whose products go into one sum.

#include <cstddef>
#include <cstdint>

// GCC 12's own AVX-512 intrinsics set it off wherever they are inlined (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace mobius {
namespace {

#if defined(__AVX512F__)

inline constexpr int kWidth = 16;
struct Vec {
  __m512 v;
};
using Mask = std::uint32_t;

inline Vec load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
inline void store(float* p, Vec a) {
  _mm512_storeu_ps(p, a.v);
}
inline Vec broadcast(float a) {
  return {_mm512_set1_ps(a)};
}
inline Vec add(Vec a, Vec b) {
  return {_mm512_add_ps(a.v, b.v)};
}
inline Vec sub(Vec a, Vec b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
inline Vec mul(Vec a, Vec b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
/// a * b + c, rounded once where the processor can.
inline Vec fma(Vec a, Vec b, Vec c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
/// The greater one; b where either is NaN.
inline Vec max(Vec a, Vec b) {
  return {_mm512_max_ps(a.v, b.v)};
}
inline float lane0(Vec a) {
  return _mm512_cvtss_f32(a.v);
}
inline float sum(Vec a) {
  return _mm512_reduce_add_ps(a.v);
}
inline float max(Vec a) {
  return _mm512_reduce_max_ps(a.v);
}
/// Lanes below n of a, the others of b.
inline Vec first(int n, Vec a, Vec b) {
  const auto mask = static_cast<__mmask16>(n >= kWidth ? 0xffff : n <= 0 ? 0 : (1 << n) - 1);
  return {_mm512_mask_blend_ps(mask, b.v, a.v)};
}
/// Bit i: a[i] > b[i].
inline Mask greater(Vec a, Vec b) {
  return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ);
}

using Words = __m512i;
inline Words load_words(const std::uint32_t* p) {
  return _mm512_loadu_si512(p);
}
inline Words broadcast_word(std::uint32_t a) {
  return _mm512_set1_epi32(static_cast<int>(a));
}
inline Vec low_half(Words a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(a, 16))};
}
inline Vec high_half(Words a) {
  return {
      _mm512_castsi512_ps(_mm512_and_si512(a, _mm512_set1_epi32(static_cast<int>(0xffff0000U))))};
}
inline Vec as_floats(Words a) {
  return {_mm512_castsi512_ps(a)};
}

#if defined(__AVX512BF16__)
inline void store_bf16(std::uint16_t* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a.v)));
}
#else
inline void store_bf16(std::uint16_t* p, Vec a) {
  // Round to nearest even on the bits. NaN stays one: its quiet bit is above those dropped.
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  rounded = _mm512_mask_blend_epi32(nan, rounded, _mm512_set1_epi32(0x7fc00000));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}
#endif

#elif defined(__AVX2__)

inline constexpr int kWidth = 8;
struct Vec {
  __m256 v;
};
using Mask = std::uint32_t;

inline Vec load(const float* p) {
  return {_mm256_loadu_ps(p)};
}
inline void store(float* p, Vec a) {
  _mm256_storeu_ps(p, a.v);
}
inline Vec broadcast(float a) {
  return {_mm256_set1_ps(a)};
}
inline Vec add(Vec a, Vec b) {
  return {_mm256_add_ps(a.v, b.v)};
}
inline Vec sub(Vec a, Vec b) {
  return {_mm256_sub_ps(a.v, b.v)};
}
inline Vec mul(Vec a, Vec b) {
  return {_mm256_mul_ps(a.v, b.v)};
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}
inline Vec max(Vec a, Vec b) {
  return {_mm256_max_ps(a.v, b.v)};
}
inline float lane0(Vec a) {
  return _mm256_cvtss_f32(a.v);
}
inline float sum(Vec a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float max(Vec a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
inline Vec first(int n, Vec a, Vec b) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i chosen = _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane);
  return {_mm256_blendv_ps(b.v, a.v, _mm256_castsi256_ps(chosen))};
}
inline Mask greater(Vec a, Vec b) {
  return static_cast<Mask>(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)));
}
inline Vec round(Vec a) {
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT)};
}
inline Vec scale_by_power(Vec a, Vec n) {
  const __m256i exponent =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23);
  return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(exponent))};
}

using Words = __m256i;
inline Words load_words(const std::uint32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline Words broadcast_word(std::uint32_t a) {
  return _mm256_set1_epi32(static_cast<int>(a));
}
inline Vec low_half(Words a) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16))};
}
inline Vec high_half(Words a) {
  return {
      _mm256_castsi256_ps(_mm256_and_si256(a, _mm256_set1_epi32(static_cast<int>(0xffff0000U))))};
}
inline Vec as_floats(Words a) {
  return {_mm256_castsi256_ps(a)};
}
inline void store_bf16(std::uint16_t* p, Vec a) {
  const __m256i bits = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q));
  rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc00000), nan);
  rounded = _mm256_srli_epi32(rounded, 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}

#else

inline constexpr int kWidth = 4;
typedef float VecFloats __attribute__((vector_size(16)));
typedef std::int32_t VecInts __attribute__((vector_size(16)));
typedef std::uint32_t Words __attribute__((vector_size(16)));
struct Vec {
  VecFloats v;
};
using Mask = std::uint32_t;

inline Vec load(const float* p) {
  Vec a;
  __builtin_memcpy(&a, p, sizeof a);
  return a;
}
inline void store(float* p, Vec a) {
  __builtin_memcpy(p, &a, sizeof a);
}
inline Vec broadcast(float a) {
  return {VecFloats{a, a, a, a}};
}
inline Vec add(Vec a, Vec b) {
  return {a.v + b.v};
}
inline Vec sub(Vec a, Vec b) {
  return {a.v - b.v};
}
inline Vec mul(Vec a, Vec b) {
  return {a.v * b.v};
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return {a.v * b.v + c.v};
}
inline Vec max(Vec a, Vec b) {
  return {a.v > b.v ? a.v : b.v};
}
inline float lane0(Vec a) {
  return a.v[0];
}
inline float sum(Vec a) {
  return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]);
}
inline float max(Vec a) {
  const float x = a.v[0] > a.v[2] ? a.v[0] : a.v[2];
  const float y = a.v[1] > a.v[3] ? a.v[1] : a.v[3];
  return x > y ? x : y;
}
inline Vec first(int n, Vec a, Vec b) {
  const VecInts lane = {0, 1, 2, 3};
  return {lane < n ? a.v : b.v};
}
inline Mask greater(Vec a, Vec b) {
  const VecInts m = a.v > b.v;
  return (m[0] & 1U) | (m[1] & 2U) | (m[2] & 4U) | (m[3] & 8U);
}
inline Vec round(Vec a) {
  // Adding 1.5 * 2^23 leaves no bits for a fraction; |a| is far below 2^22 where this is used.
  const VecFloats shift = {12582912.0F, 12582912.0F, 12582912.0F, 12582912.0F};
  return {(a.v + shift) - shift};
}
inline Vec scale_by_power(Vec a, Vec n) {
  const VecInts exponent = (__builtin_convertvector(n.v, VecInts) + 127) << 23;
  return {a.v * reinterpret_cast<VecFloats>(exponent)};
}

inline Words load_words(const std::uint32_t* p) {
  Words a;
  __builtin_memcpy(&a, p, sizeof a);
  return a;
}
inline Words broadcast_word(std::uint32_t a) {
  return Words{a, a, a, a};
}
inline Vec low_half(Words a) {
  return {reinterpret_cast<VecFloats>(a << 16)};
}
inline Vec high_half(Words a) {
  return {reinterpret_cast<VecFloats>(a & 0xffff0000U)};
}
inline Vec as_floats(Words a) {
  return {reinterpret_cast<VecFloats>(a)};
}
inline void store_bf16(std::uint16_t* p, Vec a) {
  const Words bits = reinterpret_cast<Words>(a.v);
  Words rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
  const Words quiet = {0x7fc00000U, 0x7fc00000U, 0x7fc00000U, 0x7fc00000U};
  rounded = (a.v == a.v) ? rounded : quiet;
  for (int i = 0; i < kWidth; ++i) p[i] = static_cast<std::uint16_t>(rounded[i] >> 16);
}

#endif

/// 2^x, relative error below 4e-7; exactly 1 at 0, exactly 0 at -infinity, NaN stays NaN.
/// 2^f = 1 + f * p(f), p interpolated at Chebyshev's nodes of the interval that f is reduced to.
inline Vec exp2(Vec x) {
#if defined(__AVX512F__)
  // Two instructions do all that is special: f = x - floor(x), and 2^floor(x), whatever x is.
  const Vec f = {_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEG_INF)};
  Vec p = broadcast(0x1.d4cf66p-10F);
  p = fma(p, f, broadcast(0x1.2d720ep-7F));
  p = fma(p, f, broadcast(0x1.c7f14ep-5F));
  p = fma(p, f, broadcast(0x1.ebf1c0p-3F));
  p = fma(p, f, broadcast(0x1.62e43cp-1F));
  p = fma(p, f, broadcast(1.0F));
  return {_mm512_scalef_ps(p.v, x.v)};
#else
  x = max(broadcast(-127.0F), x);  // the exponent's bits are then all zero, and so is 2^n
  const Vec n = round(x);
  const Vec f = sub(x, n);
  Vec p = broadcast(0x1.5ec866p-10F);
  p = fma(p, f, broadcast(0x1.3cbf60p-7F));
  p = fma(p, f, broadcast(0x1.c6afeep-5F));
  p = fma(p, f, broadcast(0x1.ebfa4cp-3F));
  p = fma(p, f, broadcast(0x1.62e430p-1F));
  p = fma(p, f, broadcast(1.0F));
  return scale_by_power(p, n);
#endif
}

/// How a cell is multiplied. `mac` adds a's products with b to acc, lane by lane.
struct F32Cells {
  static constexpr int kPerCell = 1;
  using Cells = Vec;
  static Cells load(const std::uint32_t* p) { return as_floats(load_words(p)); }
  static Cells broadcast(std::uint32_t a) { return as_floats(broadcast_word(a)); }
  static Vec mac(Vec acc, Cells a, Cells b) { return fma(a, b, acc); }
};

#if defined(__AVX512BF16__)
struct Bf16Cells {
  static constexpr int kPerCell = 2;
  using Cells = __m512bh;
  static Cells load(const std::uint32_t* p) { return reinterpret_cast<__m512bh>(load_words(p)); }
  static Cells broadcast(std::uint32_t a) { return reinterpret_cast<__m512bh>(broadcast_word(a)); }
  static Vec mac(Vec acc, Cells a, Cells b) { return {_mm512_dpbf16_ps(acc.v, a, b)}; }
};
#else
struct Bf16Cells {
  static constexpr int kPerCell = 2;
  struct Cells {
    Vec low, high;
  };
  static Cells split(Words a) { return {low_half(a), high_half(a)}; }
  static Cells load(const std::uint32_t* p) { return split(load_words(p)); }
  static Cells broadcast(std::uint32_t a) { return split(broadcast_word(a)); }
  static Vec mac(Vec acc, const Cells& a, const Cells& b) {
    return fma(a.high, b.high, fma(a.low, b.low, acc));
  }
};
#endif

}  // namespace
}  // namespace mobius
