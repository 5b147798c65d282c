#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/tensor.h"
#include "models/generate/checkpoint_spec.h"

namespace mobius {

/// Key of a tensor's random stream. Value i of the tensor depends on (key, i) alone, so that
/// checkpoints of different layer counts, types and shardings agree where they overlap.
std::uint64_t tensor_key(std::uint64_t seed, std::string_view tensor_name);

/// Writes values [first, first + count) of a tensor as `dtype` to `out`, which has count *
/// size_of(dtype) bytes. Nearly normal (the sum of four uniform numbers). The same bits on every
/// machine.
void fill_values(std::span<std::byte> out, DType dtype, std::uint64_t key, std::int64_t first,
                 const ValueSpec& values);

}  // namespace mobius
