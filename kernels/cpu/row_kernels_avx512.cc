#include "kernels/cpu/row_kernels.inc.h"

namespace mobius {

const RowKernels& row_kernels_avx512() {
  return kRowKernels;
}

}  // namespace mobius
