#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/tensor.h"

namespace mobius {

/// Fills a bf16 matrix with values of about standard normal distribution, from a hash of each
/// element's index.
void launch_random(Tensor matrix, cudaStream_t stream);

/// *differences += number of elements whose bits differ in a and b, of the same type and shape.
void launch_count_differences(const void* a, const void* b, DType dtype, std::int64_t count,
                              unsigned* differences, cudaStream_t stream);

}  // namespace mobius
