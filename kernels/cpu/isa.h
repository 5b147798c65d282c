#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace mobius {

/// Instruction sets that the CPU kernels are compiled for, each including those before it.
enum class Isa : std::uint8_t {
  generic,      ///< whatever the compiler targets by default (SSE2 on x86-64)
  avx2,         ///< AVX2 and FMA
  avx512,       ///< AVX-512 F, BW, DQ and VL
  avx512_bf16,  ///< AVX-512 and its BF16 dot product
};

constexpr std::string_view name_of(Isa isa) {
  switch (isa) {
    case Isa::generic: return "generic";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512_bf16: return "avx512_bf16";
  }
  return "unknown";
}

/// The best of them that processor and operating system support. The environment variable
/// MOBIUS_ISA (one of the names above) lowers it; throws std::runtime_error when it names an
/// unknown one or one that is not supported here.
Isa detect_isa();

/// Every one that can run here, worst first, whatever MOBIUS_ISA says. For tests.
std::vector<Isa> supported_isas();

}  // namespace mobius
