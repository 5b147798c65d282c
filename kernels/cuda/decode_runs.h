#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mobius {

// How the kernel of decode under full attention (attention_decode.cu) shares its work: host code
// that knows no CUDA.
//
// A row's keys are cut into parts, by its position alone. For each KV head a row's parts are summed
// up from the first to the last, one after the other, wherever each of them is computed: so its
// bits do not depend on the step. A run is some consecutive parts that one thread block computes;
// runs follow from the whole step, such that all blocks have the same amount to read.

/// Keys that the kernel takes at once; of quantised ones twice as many, which are as many bytes.
constexpr std::int32_t kDecodeUnit = 64;
constexpr std::int32_t decode_unit(bool fp8) {
  return fp8 ? 2 * kDecodeUnit : kDecodeUnit;
}
constexpr std::int32_t kMostDecodeParts = 128;

/// At most so many parts that a row's, for all KV heads, are as many as there are multiprocessors.
constexpr std::int32_t most_decode_parts(std::int32_t kv_heads) {
  const std::int32_t parts = 132 / kv_heads;
  return parts > kMostDecodeParts ? kMostDecodeParts : parts < 8 ? 8 : parts;
}

/// Keys of a part of a row that sees `keys` keys; a multiple of `unit`. The last part may have
/// fewer.
constexpr std::int32_t decode_part_keys(std::int32_t keys, std::int32_t kv_heads,
                                        std::int32_t unit = kDecodeUnit) {
  const std::int32_t whole = most_decode_parts(kv_heads) * unit;
  return (keys + whole - 1) / whole * unit;
}

constexpr std::int32_t decode_parts(std::int32_t keys, std::int32_t kv_heads,
                                    std::int32_t unit = kDecodeUnit) {
  const std::int32_t length = decode_part_keys(keys, kv_heads, unit);
  return (keys + length - 1) / length;
}

/// A row of a step that is alone in its slice.
struct DecodeRow {
  std::int32_t row = 0;  ///< in the step
  std::int32_t slice = 0;
  std::int32_t position = 0;
  std::int32_t full_from = 0;  ///< the first layer at which it is under full attention
};

/// As it lies in device memory.
struct alignas(16) DecodeRun {
  std::int32_t row = 0;
  std::int32_t slice = 0;
  std::int32_t position = 0;
  std::int32_t full_from = 0;
  std::int32_t kv_head = 0;
  std::int32_t part_keys = 0;
  std::uint16_t first = 0;  ///< part
  std::uint16_t end = 0;
  std::uint16_t prefix = 0;  ///< parts of the row's and KV head's first run
  std::uint16_t runs = 0;    ///< of the row and KV head
};
static_assert(sizeof(DecodeRun) == 32);

/// The most runs that plan_decode makes.
constexpr std::int32_t most_decode_runs(std::int32_t rows, std::int32_t kv_heads,
                                        std::int32_t blocks) {
  return rows * kv_heads + 4 * blocks;
}

/// Every part of every row and KV head is in one run. Block b has the runs
/// [block_runs[b], block_runs[b + 1]) of `runs`.
struct DecodePlan {
  std::vector<DecodeRun> runs;
  std::vector<std::int32_t> block_runs;  ///< [blocks + 1]
};

/// Fills each block with parts up to a common level, which is as low as it can be found with little
/// effort: long parts first, consecutive ones where they fit, short ones into what these leave.
/// `kv_heads` and `blocks` at least 1, positions at least 0.
DecodePlan plan_decode(std::span<const DecodeRow> rows, std::int32_t kv_heads, std::int32_t blocks,
                       std::int32_t unit = kDecodeUnit);

}  // namespace mobius
