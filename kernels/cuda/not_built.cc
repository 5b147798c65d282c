// In place of the CUDA backend where the build has none (MOBIUS_CUDA=OFF).

#include <stdexcept>

#include "kernels/backend.h"

namespace mobius {

bool has_cuda_backend() {
  return false;
}

std::unique_ptr<Backend> make_cuda_backend(std::int32_t /*device*/) {
  throw std::runtime_error("this build has no CUDA backend (cmake --preset cuda makes one)");
}

}  // namespace mobius
