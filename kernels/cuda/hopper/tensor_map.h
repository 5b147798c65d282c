#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace mobius::hopper {

/// Descriptor by which the copy engine reads boxes of `box_rows` rows by 64 columns from a bf16
/// matrix [rows, columns] on the device, with the 128-byte swizzle that wgmma reads.
cudaError_t encode_tensor_map(CUtensorMap& map, const void* matrix, std::int64_t rows, int columns,
                              int box_rows);

}  // namespace mobius::hopper
