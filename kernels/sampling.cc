#include "kernels/sampling.h"

#include "kernels/philox.h"

namespace mobius {

float uniform_draw(std::uint64_t seed, std::uint64_t index) {
  const auto random = philox4x32_10(
      {static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), 0, 0},
      {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  // The 24 bits that a float in [0.5, 1) can hold: a conversion of all 32 could round up to 1.
  return static_cast<float>(random[0] >> 8) * 0x1p-24F;
}

}  // namespace mobius
