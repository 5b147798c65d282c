#include "kernels/cpu/row_kernels.inc.h"

namespace mobius {

const RowKernels& row_kernels_avx2() {
  return kRowKernels;
}

}  // namespace mobius
