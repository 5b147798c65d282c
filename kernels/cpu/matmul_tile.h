#pragma once

// The matrix product's inner loops, compiled once for each instruction set. Included by
// matmul_<isa>.cc alone, each of which says in a struct `V` what a vector is:
//
//   Element          float, or std::uint16_t for bf16
//   Operand, Sum     a step's worth of elements, and one fp32 accumulator
//   kStep            elements of K in an Operand
//   kTileRows        rows of x that fit the registers together with 4 rows of w
//   zero(), load(p), load_first(p, n), dot(sum, x, w)
//   reduce(s0, s1, s2, s3, out)   each sum's lanes added up in one fixed order, to out[0..3]
//
// Everything lies in an anonymous namespace: the same templates compiled for two instruction sets
// must never be merged by the linker.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/matmul.h"

namespace mobius {
namespace {

template <class Element>
void prefetch(const Element* p, std::int64_t bytes) {
  // The address may lie past the matrix: a prefetch of it does nothing, but arithmetic on the
  // pointer would not be defined. NOLINTNEXTLINE(performance-no-int-to-ptr)
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) +
                                                   static_cast<std::uintptr_t>(bytes)));
}

/// sums[r][0..3] = x rows r against four rows of w over `k` elements. x is packed: the kStep
/// elements of all R rows at one k lie together. Asks for w `ahead` bytes further on if kPrefetch.
template <class V, int R, bool kPrefetch>
void multiply_tile(const typename V::Element* x, const typename V::Element* const* w,
                   std::int64_t k, std::int64_t ahead, float (*sums)[4]) {
  typename V::Sum acc[R][4];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < 4; ++n) acc[r][n] = V::zero();
  }
  const typename V::Element* w0 = w[0];
  const typename V::Element* w1 = w[1];
  const typename V::Element* w2 = w[2];
  const typename V::Element* w3 = w[3];
  const auto step = [&](const auto& load_w) {
    const typename V::Operand b0 = load_w(w0);
    const typename V::Operand b1 = load_w(w1);
    const typename V::Operand b2 = load_w(w2);
    const typename V::Operand b3 = load_w(w3);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const typename V::Operand a = V::load(x + r * V::kStep);
      acc[r][0] = V::dot(acc[r][0], a, b0);
      acc[r][1] = V::dot(acc[r][1], a, b1);
      acc[r][2] = V::dot(acc[r][2], a, b2);
      acc[r][3] = V::dot(acc[r][3], a, b3);
    }
  };
  std::int64_t i = 0;
  for (; i + V::kStep <= k; i += V::kStep) {
    if constexpr (kPrefetch) {
      prefetch(w0, ahead);
      prefetch(w1, ahead);
      prefetch(w2, ahead);
      prefetch(w3, ahead);
    }
    step([](const typename V::Element* p) { return V::load(p); });
    w0 += V::kStep;
    w1 += V::kStep;
    w2 += V::kStep;
    w3 += V::kStep;
    x += R * V::kStep;
  }
  // x is padded with zeros; w must not be read past its end.
  if (i < k) step([&](const typename V::Element* p) { return V::load_first(p, k - i); });
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) V::reduce(acc[r][0], acc[r][1], acc[r][2], acc[r][3], sums[r]);
}

/// Copies `k` elements of R rows of x, `stride` apart, into the order that multiply_tile reads.
template <class V, int R>
void pack_tile(const typename V::Element* x, std::int64_t stride, std::int64_t k,
               typename V::Element* packed) {
  std::int64_t i = 0;
  for (; i + V::kStep <= k; i += V::kStep) {
    for (int r = 0; r < R; ++r) {
      std::memcpy(packed, x + r * stride + i, sizeof(typename V::Element) * V::kStep);
      packed += V::kStep;
    }
  }
  if (i == k) return;
  for (int r = 0; r < R; ++r) {
    for (std::int64_t j = 0; j < V::kStep; ++j) {
      packed[j] = i + j < k ? x[r * stride + i + j] : typename V::Element{0};
    }
    packed += V::kStep;
  }
}

/// Adds the chunk's sums of R rows and four columns to the panel's totals.
template <int R>
void add_sums(const MatmulPanel& panel, const float (*sums)[4], std::int64_t row,
              std::int64_t column, std::int64_t start) {
  for (int r = 0; r < R; ++r) {
    float* total = panel.totals + (row + r) * kMatmulPanelColumns + column;
    for (int n = 0; n < 4; ++n) total[n] = start == 0 ? sums[r][n] : total[n] + sums[r][n];
  }
}

/// R rows of x (packed for the chunk) against four of the panel's columns, added to its totals.
template <class V, int R, bool kPrefetch>
void add_tile(const MatmulPanel& panel, const typename V::Element* packed, std::int64_t row,
              std::int64_t column, std::int64_t start, std::int64_t k, std::int64_t ahead) {
  const auto* w = static_cast<const typename V::Element*>(panel.w) + start;
  // Past the last column the last one is computed again and thrown away.
  const typename V::Element* rows[4];
  const std::int64_t last = panel.columns - 1;
  for (std::int64_t n = 0; n < 4; ++n) {
    rows[n] = w + (column + n < last ? column + n : last) * panel.k;
  }
  float sums[R][4];
  multiply_tile<V, R, kPrefetch>(packed, rows, k, ahead, sums);
  add_sums<R>(panel, sums, row, column, start);
}

inline std::int64_t chunk_size(std::int64_t k, std::int64_t start) {
  return k - start < kMatmulChunk ? k - start : kMatmulChunk;
}

/// Sums of one row of x against one row of w: multiply_tile's arithmetic, one sum at a time.
template <class V>
typename V::Sum multiply_row(const typename V::Element* x, const typename V::Element* w,
                             std::int64_t k) {
  typename V::Sum sum = V::zero();
  std::int64_t i = 0;
  for (; i + V::kStep <= k; i += V::kStep) sum = V::dot(sum, V::load(x + i), V::load(w + i));
  if (i < k) sum = V::dot(sum, V::load(x + i), V::load_first(w + i, k - i));
  return sum;
}

/// One row: memory is the limit, so that w is read as it lies, one row after the other. (Four rows
/// side by side are four streams, and asking for them ahead of time makes it worse: 28 GB/s against
/// 33 on two Zen 4 cores.)
template <class V>
void multiply_one_row(const MatmulPanel& panel) {
  constexpr std::int64_t kGroup = 8;  // chunks whose sums are kept until four rows of w are through
  const auto* w = static_cast<const typename V::Element*>(panel.w);
  const auto* packed = static_cast<const typename V::Element*>(panel.packed);
  for (std::int64_t first = 0; first < panel.k; first += kGroup * kMatmulChunk) {
    const std::int64_t end = std::min(panel.k, first + kGroup * kMatmulChunk);
    for (std::int64_t column = 0; column < panel.columns; column += 4) {
      typename V::Sum acc[kGroup][4];
      for (std::int64_t n = 0; n < 4; ++n) {
        const std::int64_t row = std::min(column + n, panel.columns - 1);
        for (std::int64_t start = first; start < end; start += kMatmulChunk) {
          acc[(start - first) / kMatmulChunk][n] = multiply_row<V>(
              packed + start, w + row * panel.k + start, chunk_size(panel.k, start));
        }
      }
      for (std::int64_t start = first; start < end; start += kMatmulChunk) {
        float sums[1][4];
        const auto& chunk = acc[(start - first) / kMatmulChunk];
        V::reduce(chunk[0], chunk[1], chunk[2], chunk[3], sums[0]);
        add_sums<1>(panel, sums, 0, column, start);
      }
    }
  }
}

/// How far ahead of their use weights are asked for, in bytes, where few rows read them: far enough
/// to cover memory's latency, and past the page (4 KiB) at which the processor's prefetcher stops.
inline constexpr std::int64_t kPrefetchBytes = 16384;

/// Few rows: memory and the first-level cache are the limits, so that w is read in the order in
/// which it lies, four rows at a time.
template <class V, int R>
void multiply_few_rows(const MatmulPanel& panel) {
  const auto* x = static_cast<const typename V::Element*>(panel.x);
  auto* packed = static_cast<typename V::Element*>(panel.packed);
  for (std::int64_t start = 0; start < panel.k; start += kMatmulChunk) {
    pack_tile<V, R>(x + start, panel.k, chunk_size(panel.k, start), packed + R * start);
  }
  if constexpr (R == 1) return multiply_one_row<V>(panel);
  for (std::int64_t column = 0; column < panel.columns; column += 4) {
    for (std::int64_t start = 0; start < panel.k; start += kMatmulChunk) {
      add_tile<V, R, true>(panel, packed + R * start, 0, column, start, chunk_size(panel.k, start),
                           kPrefetchBytes);
    }
  }
}

/// Many rows: arithmetic is the limit, so that a chunk of w stays in the second-level cache and a
/// chunk of x in the first.
template <class V, int R>
void multiply_rows(const MatmulPanel& panel, std::int64_t row, std::int64_t start) {
  const auto* x = static_cast<const typename V::Element*>(panel.x);
  auto* packed = static_cast<typename V::Element*>(panel.packed);
  const std::int64_t k = chunk_size(panel.k, start);
  pack_tile<V, R>(x + row * panel.k + start, panel.k, k, packed);
  // The first rows bring the next four rows of w in from memory, the others find them in cache.
  const std::int64_t ahead = 4 * panel.k * static_cast<std::int64_t>(sizeof *x);
  for (std::int64_t column = 0; column < panel.columns; column += 4) {
    if (row == 0) {
      add_tile<V, R, true>(panel, packed, row, column, start, k, ahead);
    } else {
      add_tile<V, R, false>(panel, packed, row, column, start, k, ahead);
    }
  }
}

/// Calls run.operator()<rows>(), 1 <= rows <= V::kTileRows.
template <class V, class Run>
void with_rows(std::int64_t rows, const Run& run) {
  if (rows == 1) return run.template operator()<1>();
  if (rows == 2) return run.template operator()<2>();
  if constexpr (V::kTileRows >= 3) {
    if (rows == 3) return run.template operator()<3>();
  }
  if constexpr (V::kTileRows >= 4) {
    if (rows == 4) return run.template operator()<4>();
  }
  if constexpr (V::kTileRows >= 5) {
    if (rows == 5) return run.template operator()<5>();
  }
  if constexpr (V::kTileRows >= 6) {
    if (rows == 6) return run.template operator()<6>();
  }
}

inline std::uint16_t bf16_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const bool nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
  const std::uint32_t rounded = (bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16;
  return static_cast<std::uint16_t>(nan ? (bits >> 16 | 0x40U) : rounded);
}

inline void write_totals(const MatmulPanel& panel) {
  for (std::int64_t row = 0; row < panel.rows; ++row) {
    const float* total = panel.totals + row * kMatmulPanelColumns;
    if (panel.out_bf16) {
      auto* out = static_cast<std::uint16_t*>(panel.out) + row * panel.out_stride;
      for (std::int64_t n = 0; n < panel.columns; ++n) out[n] = bf16_bits(total[n]);
    } else {
      auto* out = static_cast<float*>(panel.out) + row * panel.out_stride;
      if (panel.accumulate) {
        for (std::int64_t n = 0; n < panel.columns; ++n) out[n] += total[n];
      } else {
        std::memcpy(out, total, sizeof(float) * static_cast<std::size_t>(panel.columns));
      }
    }
  }
}

template <class V>
void multiply_panel(const MatmulPanel& panel) {
  static_assert(V::kTileRows <= kMatmulTileRows && kMatmulChunk % V::kStep == 0);
  if (panel.rows <= V::kTileRows) {
    with_rows<V>(panel.rows, [&]<int R>() { multiply_few_rows<V, R>(panel); });
  } else {
    for (std::int64_t start = 0; start < panel.k; start += kMatmulChunk) {
      for (std::int64_t row = 0; row < panel.rows; row += V::kTileRows) {
        const std::int64_t left = panel.rows - row;
        with_rows<V>(left < V::kTileRows ? left : V::kTileRows,
                     [&]<int R>() { multiply_rows<V, R>(panel, row, start); });
      }
    }
  }
  write_totals(panel);
}

}  // namespace
}  // namespace mobius
