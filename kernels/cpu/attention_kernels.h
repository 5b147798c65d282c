#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/tensor.h"

namespace mobius {

/// Keys that one softmax update covers at most.
inline constexpr int kTileKeys = 128;
/// Rows that one call of a kernel takes at most.
inline constexpr int kTileRows = 48;

/// Running softmax of rows: out = o / l once all keys are in. `m` is the highest score so far,
/// before scaling; -infinity: no key yet.
struct SoftmaxState {
  float* m = nullptr;  ///< [rows]
  float* l = nullptr;  ///< [rows], sum of 2^(scale * (score - m))
  float* o = nullptr;  ///< [rows, head_dim]
};

/// Attends `rows` rows to the first keys of a tile. Cells are those of CpuKvPool.
struct TileTask {
  const std::uint32_t* q = nullptr;       ///< [rows][steps], steps = cells in head_dim
  const std::uint32_t* keys = nullptr;    ///< [steps][key_stride]
  const std::uint32_t* values = nullptr;  ///< [key cells][head_dim]
  std::int32_t key_stride = 0;
  std::int32_t head_dim = 0;
  std::int32_t rows = 0;                    ///< <= kTileRows
  const std::int32_t* valid = nullptr;      ///< [rows]: keys that the row sees, 0..kTileKeys
  std::int32_t max_valid = 0;               ///< the greatest of them, at least 1
  const std::int32_t* state_row = nullptr;  ///< [rows]: the row's index in `state`
  SoftmaxState state;
  const std::uint32_t* next_keys = nullptr;    ///< tile that a later call reads, fetched meanwhile;
  const std::uint32_t* next_values = nullptr;  ///< null: none
  float scale = 0.0F;                          ///< log2(e) / sqrt(head_dim)
  float* scores = nullptr;                     ///< scratch [rows][kTileKeys]
};

/// Highest scores of a row so far, best first; equal ones in the order they came.
struct TopList {
  float* scores = nullptr;
  std::int32_t* blocks = nullptr;
  std::int32_t count = 0;
  std::int32_t limit = 0;
};

/// The vectorised parts of attention, one set for each element type and instruction set. Every
/// row's arithmetic is the same whatever rows stand beside it.
struct AttentionKernels {
  /// scores[rows][kTileKeys] = q[rows][steps] * keys[steps][stride], for the first `count` keys
  /// (rounded up to 16).
  void (*dot)(const std::uint32_t* q, std::int32_t rows, std::int32_t steps,
              const std::uint32_t* keys, std::int32_t stride, std::int32_t count, float* scores);
  void (*attend)(const TileTask& task);
  /// Adds one row's state `part` to `total` by log-sum-exp.
  void (*merge)(SoftmaxState total, SoftmaxState part, std::int32_t head_dim, float scale);
  /// out[head_dim] (the element type) = o / l.
  void (*finish)(void* out, SoftmaxState state, std::int32_t head_dim);
  /// Offers scores[count] of blocks first_block, first_block + 1, ...
  void (*keep_top)(TopList& top, const float* scores, std::int32_t count, std::int32_t first_block);
  /// The first `count` tokens of quantised keys, codes [head_dim][page_tokens] and scales [count],
  /// as cells [steps][page_tokens]; exact.
  void (*widen_keys)(std::uint32_t* cells, const std::uint8_t* codes, const std::uint8_t* scales,
                     std::int32_t page_tokens, std::int32_t head_dim, std::int32_t count);
  /// The first `count` tokens of quantised values, codes [count][head_dim] and scales [count], as
  /// cells [key cells][head_dim]; zero for the second token of a pair that is not there.
  void (*widen_values)(std::uint32_t* cells, const std::uint8_t* codes, const std::uint8_t* scales,
                       std::int32_t head_dim, std::int32_t count);
};

/// dtype: f32 or bf16.
const AttentionKernels& attention_kernels(Isa isa, DType dtype);

}  // namespace mobius
