#pragma once

// The kernels of attention_kernels.h, compiled once for each instruction set: the files named
// attention_kernels_<isa>.cc include this one. See simd.h for what may be called here.

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/simd.h"

namespace mobius {
namespace {

// Registers: kRows * kVecs accumulators, kVecs vectors of keys or values, one broadcast. Sanitizers
// get fewer combinations to instrument, which takes them minutes; results do not depend on these.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int kRows = 2;
inline constexpr int kVecs = 2;
#elif defined(__AVX512F__)
inline constexpr int kRows = 6;
inline constexpr int kVecs = 4;
#else
inline constexpr int kRows = 4;
inline constexpr int kVecs = 2;
#endif

inline constexpr float kMinusInfinity = -__builtin_inff();

/// Calls body.template operator()<N>() for N = count, 1 <= count <= Max.
template <int Max, class Body>
inline void with_constant(std::ptrdiff_t count, const Body& body) {
  if constexpr (Max > 1) {
    if (count < Max) return with_constant<Max - 1>(count, body);
  }
  body.template operator()<Max>();
}

/// Fetches what the next tile has where this one has `at`, `distance` bytes away. Loads
/// of one tile and fetches for the next then keep each other company, cache line for cache line.
inline void fetch_ahead(const std::uint32_t* at, std::ptrdiff_t distance) {
  __builtin_prefetch(reinterpret_cast<const char*>(at) + distance, 0, 2);
}

template <class C, int Rows, int Vecs, bool Fetch>
void dot_tile(const std::uint32_t* q, int steps, const std::uint32_t* keys, std::ptrdiff_t stride,
              float* scores, std::ptrdiff_t ahead) {
  Vec acc[Rows][Vecs];
  for (std::ptrdiff_t r = 0; r < Rows; ++r) {
    for (std::ptrdiff_t v = 0; v < Vecs; ++v) acc[r][v] = broadcast(0.0F);
  }
  for (std::ptrdiff_t s = 0; s < steps; ++s, keys += stride) {
    typename C::Cells key[Vecs];
    for (std::ptrdiff_t v = 0; v < Vecs; ++v) {
      key[v] = C::load(keys + v * kWidth);
      if constexpr (Fetch) fetch_ahead(keys + v * kWidth, ahead);
    }
    for (std::ptrdiff_t r = 0; r < Rows; ++r) {
      const typename C::Cells query = C::broadcast(q[r * steps + s]);
      for (std::ptrdiff_t v = 0; v < Vecs; ++v) acc[r][v] = C::mac(acc[r][v], query, key[v]);
    }
  }
  for (std::ptrdiff_t r = 0; r < Rows; ++r) {
    for (std::ptrdiff_t v = 0; v < Vecs; ++v) store(scores + r * kTileKeys + v * kWidth, acc[r][v]);
  }
}

template <class C>
void dot(const std::uint32_t* q, std::int32_t rows, std::int32_t steps, const std::uint32_t* keys,
         std::int32_t stride, std::int32_t count, float* scores, std::ptrdiff_t ahead) {
  const int vecs = (count + 15) / 16 * (16 / kWidth);
  for (std::ptrdiff_t r = 0; r < rows; r += kRows) {
    with_constant<kRows>(rows - r, [&]<int R>() {
      for (std::ptrdiff_t v = 0; v < vecs; v += kVecs) {
        with_constant<kVecs>(vecs - v, [&]<int V>() {
          float* out = scores + r * kTileKeys + v * kWidth;
          if (r == 0 && ahead != 0) {
            dot_tile<C, R, V, true>(q, steps, keys + v * kWidth, stride, out, ahead);
          } else {
            dot_tile<C, R, V, false>(q + r * steps, steps, keys + v * kWidth, stride, out, 0);
          }
        });
      }
    });
  }
}

/// Writes a vector of probabilities as cells, rounded to the cells' type.
template <class C>
inline void store_probabilities(std::uint32_t* cells, int key, Vec p) {
  if constexpr (C::kPerCell == 2) {
    store_bf16(reinterpret_cast<std::uint16_t*>(cells) + key, p);
  } else {
    store(reinterpret_cast<float*>(cells) + key, p);
  }
}

template <class C>
inline typename C::Cells ones() {
  return C::broadcast(C::kPerCell == 2 ? 0x3f803f80U : 0x3f800000U);
}

/// Turns a row of scores into probability cells in place, updates the row's m and l, and returns
/// the factor that its earlier output shrinks by. `keys` is a multiple of the keys in a vector of
/// cells. Keys from `valid` on get probability 0, so they count for nothing whatever their scores
/// are.
template <class C, bool Masked>
inline float softmax_row(float* scores, int keys, int valid, float scale, float& m, float& l) {
  Vec highest = broadcast(kMinusInfinity);
  for (int j = 0; j < keys; j += kWidth) {
    Vec s = load(scores + j);
    if constexpr (Masked) {
      s = first(valid - j, s, broadcast(kMinusInfinity));
      store(scores + j, s);
    }
    highest = max(highest, s);
  }
  const float before = m;
  const float tile_max = max(highest);
  const float now = before > tile_max ? before : tile_max;
  const Vec factor = broadcast(scale);
  const Vec shift = broadcast(-now * scale);

  auto* cells = reinterpret_cast<std::uint32_t*>(scores);
  const typename C::Cells one = ones<C>();
  Vec total = broadcast(0.0F);
  for (int j = 0; j < keys; j += kWidth * C::kPerCell) {
    // All loads of the turn come first: the cells overwrite the scores they are made of.
    Vec s[C::kPerCell];
    for (int i = 0; i < C::kPerCell; ++i) s[i] = load(scores + j + std::ptrdiff_t{i} * kWidth);
    for (int i = 0; i < C::kPerCell; ++i) {
      store_probabilities<C>(cells, j + i * kWidth, exp2(fma(s[i], factor, shift)));
    }
    // Sums the rounded probabilities, the ones that multiply values, so that weights add up to 1.
    total = C::mac(total, C::load(cells + j / C::kPerCell), one);
  }
  const float shrink = lane0(exp2(broadcast((before - now) * scale)));
  m = now;
  l = l * shrink + sum(total);
  return shrink;
}

template <class C, int Rows, int Vecs, bool Fetch>
void accumulate_tile(const TileTask& task, std::ptrdiff_t row, int cells, std::ptrdiff_t column,
                     const float* shrink, std::ptrdiff_t ahead) {
  const std::uint32_t* values = task.values + column;
  const auto* p = reinterpret_cast<const std::uint32_t*>(task.scores + row * kTileKeys);
  float* o[Rows];
  Vec acc[Rows][Vecs];
  for (std::ptrdiff_t r = 0; r < Rows; ++r) {
    o[r] = task.state.o + static_cast<std::ptrdiff_t>(task.state_row[row + r]) * task.head_dim +
           column;
    for (std::ptrdiff_t v = 0; v < Vecs; ++v) {
      acc[r][v] = mul(load(o[r] + v * kWidth), broadcast(shrink[row + r]));
    }
  }
  for (std::ptrdiff_t s = 0; s < cells; ++s, values += task.head_dim) {
    typename C::Cells value[Vecs];
    for (std::ptrdiff_t v = 0; v < Vecs; ++v) {
      value[v] = C::load(values + v * kWidth);
      if constexpr (Fetch) fetch_ahead(values + v * kWidth, ahead);
    }
    for (std::ptrdiff_t r = 0; r < Rows; ++r) {
      const typename C::Cells weight = C::broadcast(p[r * kTileKeys + s]);
      for (std::ptrdiff_t v = 0; v < Vecs; ++v) acc[r][v] = C::mac(acc[r][v], weight, value[v]);
    }
  }
  for (std::ptrdiff_t r = 0; r < Rows; ++r) {
    for (std::ptrdiff_t v = 0; v < Vecs; ++v) store(o[r] + v * kWidth, acc[r][v]);
  }
}

/// In bytes; 0 where there is no next tile.
inline std::ptrdiff_t distance(const std::uint32_t* tile, const std::uint32_t* next) {
  if (next == nullptr) return 0;
  return reinterpret_cast<std::intptr_t>(next) - reinterpret_cast<std::intptr_t>(tile);
}

template <class C>
void dot_panel(const std::uint32_t* q, std::int32_t rows, std::int32_t steps,
               const std::uint32_t* keys, std::int32_t stride, std::int32_t count, float* scores) {
  dot<C>(q, rows, steps, keys, stride, count, scores, 0);
}

template <class C>
void attend(const TileTask& task) {
  dot<C>(task.q, task.rows, task.head_dim / C::kPerCell, task.keys, task.key_stride, task.max_valid,
         task.scores, distance(task.keys, task.next_keys));

  constexpr int kTurn = kWidth * C::kPerCell;
  const int keys = (task.max_valid + kTurn - 1) / kTurn * kTurn;
  float shrink[kTileRows];
  for (std::ptrdiff_t r = 0; r < task.rows; ++r) {
    float& m = task.state.m[task.state_row[r]];
    float& l = task.state.l[task.state_row[r]];
    float* scores = task.scores + r * kTileKeys;
    const int valid = task.valid[r];
    shrink[r] = valid >= keys ? softmax_row<C, false>(scores, keys, valid, task.scale, m, l)
                              : softmax_row<C, true>(scores, keys, valid, task.scale, m, l);
  }

  const int cells = (task.max_valid + C::kPerCell - 1) / C::kPerCell;
  const int vecs = task.head_dim / kWidth;
  const std::ptrdiff_t fetch_values = distance(task.values, task.next_values);
  for (std::ptrdiff_t r = 0; r < task.rows; r += kRows) {
    with_constant<kRows>(task.rows - r, [&]<int R>() {
      for (std::ptrdiff_t v = 0; v < vecs; v += kVecs) {
        with_constant<kVecs>(vecs - v, [&]<int V>() {
          if (r == 0 && fetch_values != 0) {
            accumulate_tile<C, R, V, true>(task, r, cells, v * kWidth, shrink, fetch_values);
          } else {
            accumulate_tile<C, R, V, false>(task, r, cells, v * kWidth, shrink, 0);
          }
        });
      }
    });
  }
}

inline void merge(SoftmaxState total, SoftmaxState part, std::int32_t head_dim, float scale) {
  const float m = *total.m > *part.m ? *total.m : *part.m;
  const Vec keep = exp2(broadcast((*total.m - m) * scale));
  const Vec join = exp2(broadcast((*part.m - m) * scale));
  *total.m = m;
  *total.l = lane0(fma(broadcast(*part.l), join, mul(broadcast(*total.l), keep)));
  for (int i = 0; i < head_dim; i += kWidth) {
    store(total.o + i, fma(load(part.o + i), join, mul(load(total.o + i), keep)));
  }
}

template <class C>
void finish(void* out, SoftmaxState state, std::int32_t head_dim) {
  const Vec inverse = broadcast(1.0F / *state.l);
  for (int i = 0; i < head_dim; i += kWidth) {
    // A zero's sign may depend on how many keys of probability 0 were added; adding 0 clears it.
    const Vec x = add(mul(load(state.o + i), inverse), broadcast(0.0F));
    store_probabilities<C>(static_cast<std::uint32_t*>(out), i, x);
  }
}

inline void insert(TopList& top, float score, std::int32_t block) {
  int at = top.count < top.limit ? top.count++ : top.limit - 1;
  for (; at > 0 && top.scores[at - 1] < score; --at) {
    top.scores[at] = top.scores[at - 1];
    top.blocks[at] = top.blocks[at - 1];
  }
  top.scores[at] = score;
  top.blocks[at] = block;
}

inline void keep_top(TopList& top, const float* scores, std::int32_t count,
                     std::int32_t first_block) {
  if (top.limit <= 0) return;
  int i = 0;
  for (; i < count && top.count < top.limit; ++i) insert(top, scores[i], first_block + i);
  // Only a higher score displaces another: blocks come in ascending order and ties go to the lower.
  for (; i < count;) {
    if (i % kWidth == 0 && i + kWidth <= count) {
      const Mask higher = greater(load(scores + i), broadcast(top.scores[top.limit - 1]));
      if (higher == 0) {
        i += kWidth;
        continue;
      }
    }
    const int end = (i / kWidth + 1) * kWidth;
    for (; i < count && i < end; ++i) {
      if (scores[i] > top.scores[top.limit - 1]) insert(top, scores[i], first_block + i);
    }
  }
}

/// Bits of the f32 that a code (kernels/fp8.h) times `scale` is. The 7 bits below the sign, put
/// where a float has the low 4 bits of its exponent and the high 3 of its mantissa, are the value
/// times 2^-120, subnormals included. No branches, for the vectoriser.
inline std::uint32_t widened(std::uint8_t code, float scale) {
  const std::uint32_t small_bits = (code & 0x7FU) << 20;
  float small;
  __builtin_memcpy(&small, &small_bits, sizeof small);
  const float value = small * 0x1p120F * scale;
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits | (code & 0x80U) << 24;
}

/// The float whose exponent is the byte.
inline float scale_of(std::uint8_t byte) {
  const std::uint32_t bits = std::uint32_t{byte} << 23;
  float scale;
  __builtin_memcpy(&scale, &bits, sizeof scale);
  return scale;
}

/// Cells of a pair of bf16: the upper halves, which hold all of the value.
inline std::uint32_t pair_cell(std::uint32_t low, std::uint32_t high) {
  return low >> 16 | (high & 0xffff0000U);
}

template <class C>
void widen_keys(std::uint32_t* __restrict cells, const std::uint8_t* __restrict codes,
                const std::uint8_t* __restrict scales, std::int32_t page_tokens,
                std::int32_t head_dim, std::int32_t count) {
  const std::ptrdiff_t stride = page_tokens;
  for (std::ptrdiff_t first = 0; first < count; first += kTileKeys) {
    const std::ptrdiff_t tokens = count - first < kTileKeys ? count - first : kTileKeys;
    float scale[kTileKeys];
    for (std::ptrdiff_t t = 0; t < tokens; ++t) scale[t] = scale_of(scales[first + t]);
    for (std::ptrdiff_t s = 0; s < head_dim / C::kPerCell; ++s) {
      const std::uint8_t* low = codes + s * C::kPerCell * stride + first;
      std::uint32_t* out = cells + s * stride + first;
      if constexpr (C::kPerCell == 2) {
        const std::uint8_t* high = low + stride;
        for (std::ptrdiff_t t = 0; t < tokens; ++t) {
          out[t] = pair_cell(widened(low[t], scale[t]), widened(high[t], scale[t]));
        }
      } else {
        for (std::ptrdiff_t t = 0; t < tokens; ++t) out[t] = widened(low[t], scale[t]);
      }
    }
  }
}

template <class C>
void widen_values(std::uint32_t* __restrict cells, const std::uint8_t* __restrict codes,
                  const std::uint8_t* __restrict scales, std::int32_t head_dim,
                  std::int32_t count) {
  for (std::ptrdiff_t t = 0; t < count; t += C::kPerCell) {
    const std::uint8_t* low = codes + t * head_dim;
    const float scale = scale_of(scales[t]);
    std::uint32_t* out = cells + t / C::kPerCell * head_dim;
    if constexpr (C::kPerCell == 2) {
      if (t + 1 < count) {
        const float high_scale = scale_of(scales[t + 1]);
        const std::uint8_t* high = low + head_dim;
        for (std::ptrdiff_t i = 0; i < head_dim; ++i) {
          out[i] = pair_cell(widened(low[i], scale), widened(high[i], high_scale));
        }
        continue;
      }
      for (std::ptrdiff_t i = 0; i < head_dim; ++i) out[i] = widened(low[i], scale) >> 16;
    } else {
      for (std::ptrdiff_t i = 0; i < head_dim; ++i) out[i] = widened(low[i], scale);
    }
  }
}

template <class C>
constexpr AttentionKernels kernels_of() {
  return {dot_panel<C>, attend<C>, merge, finish<C>, keep_top, widen_keys<C>, widen_values<C>};
}

}  // namespace
}  // namespace mobius
