#pragma once

// Tests that run on every instruction set of this processor:
//   INSTANTIATE_TEST_SUITE_P(EveryIsa, Suite, every_isa(), isa_name);

#include <gtest/gtest.h>

#include <string>

#include "kernels/cpu/isa.h"

namespace mobius {

inline auto every_isa() {
  return testing::ValuesIn(supported_isas());
}

inline std::string isa_name(const testing::TestParamInfo<Isa>& instance) {
  return std::string(name_of(instance.param));
}

}  // namespace mobius
