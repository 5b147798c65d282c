#include "kernels/cpu/matmul_tile.h"

namespace mobius {
namespace {

// The compiler's own vectors: SSE2 on x86-64, NEON on Arm.
using Floats = float __attribute__((vector_size(16)));
using Bits = std::uint32_t __attribute__((vector_size(16)));
using HalfBits = std::uint16_t __attribute__((vector_size(8)));

inline void reduce_sums(Floats s0, Floats s1, Floats s2, Floats s3, float* out) {
  const Floats* sums[4] = {&s0, &s1, &s2, &s3};
  for (int n = 0; n < 4; ++n) {
    const Floats s = *sums[n];
    out[n] = (s[0] + s[1]) + (s[2] + s[3]);
  }
}

struct F32 {
  using Element = float;
  using Operand = Floats;
  using Sum = Floats;
  static constexpr std::int64_t kStep = 4;
  static constexpr std::int64_t kTileRows = 2;

  static Sum zero() { return Floats{}; }
  static Operand load(const Element* p) { return load_first(p, kStep); }
  static Operand load_first(const Element* p, std::int64_t n) {
    Floats first{};
    std::memcpy(&first, p, static_cast<std::size_t>(n) * sizeof(Element));
    return first;
  }
  static Sum dot(Sum sum, Operand x, Operand w) { return sum + x * w; }
  static void reduce(Sum s0, Sum s1, Sum s2, Sum s3, float* out) {
    reduce_sums(s0, s1, s2, s3, out);
  }
};

struct Bf16 {
  using Element = std::uint16_t;
  using Operand = Floats;
  using Sum = Floats;
  static constexpr std::int64_t kStep = 4;
  static constexpr std::int64_t kTileRows = 2;

  static Sum zero() { return Floats{}; }
  static Operand load(const Element* p) { return load_first(p, kStep); }
  static Operand load_first(const Element* p, std::int64_t n) {
    HalfBits first{};
    std::memcpy(&first, p, static_cast<std::size_t>(n) * sizeof(Element));
    const Bits bits = __builtin_convertvector(first, Bits) << 16;
    Floats values;
    std::memcpy(&values, &bits, sizeof values);
    return values;
  }
  static Sum dot(Sum sum, Operand x, Operand w) { return sum + x * w; }
  static void reduce(Sum s0, Sum s1, Sum s2, Sum s3, float* out) {
    reduce_sums(s0, s1, s2, s3, out);
  }
};

}  // namespace

MatmulKernels matmul_kernels_generic() {
  return {multiply_panel<Bf16>, multiply_panel<F32>};
}

}  // namespace mobius
