#include "kernels/cpu/row_kernels.inc.h"

namespace mobius {

const RowKernels& row_kernels_generic() {
  return kRowKernels;
}

}  // namespace mobius
