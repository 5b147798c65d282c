#include "kernels/cpu/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace mobius {

std::vector<Isa> supported_isas() {
  std::vector<Isa> isas = {Isa::generic};
#if defined(__x86_64__)
  // These ask the operating system too (XGETBV): registers it does not save cannot be used.
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return isas;
  isas.push_back(Isa::avx2);
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return isas;
  }
  isas.push_back(Isa::avx512);
  if (__builtin_cpu_supports("avx512bf16")) isas.push_back(Isa::avx512_bf16);
#endif
  return isas;
}

Isa detect_isa() {
  const std::vector<Isa> supported = supported_isas();
  const char* wanted = std::getenv("MOBIUS_ISA");
  if (wanted == nullptr || *wanted == '\0') return supported.back();
  std::string names;
  for (const Isa isa : supported) {
    if (name_of(isa) == wanted) return isa;
    names += (names.empty() ? "" : ", ") + std::string(name_of(isa));
  }
  throw std::runtime_error("MOBIUS_ISA is \"" + std::string(wanted) +
                           "\"; this machine can run: " + names);
}

}  // namespace mobius
