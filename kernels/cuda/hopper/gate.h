#pragma once

#include <cuda.h>

#include "kernels/cuda/hopper/plan.h"

namespace mobius::hopper {

struct GateParams {
  const std::uint16_t* q;  ///< [rows, q_heads, d] bf16
  std::int32_t q_heads;
  Pass pass;
  PassArrays arrays;
};

constexpr int kShortTopK = 13;  ///< up to here, each thread keeps lists of its own

/// Warpgroups of 64 pairs per gating tile: as many as the lists leave registers for.
constexpr int gate_groups(int top_k) {
  return top_k <= kShortTopK ? 3 : 2;
}

/// Scores every pair of the pass against the centroids of its candidate blocks; writes `chosen` and
/// `place`, counts `counts` up, and marks the partial results of slots that stay empty.
/// gate_d128.cu and gate_d64.cu hold one head dimension each.
cudaError_t launch_gate_d128(const GateParams& params, const CUtensorMap& centroids, int top_k,
                             int max_gate_tiles, cudaStream_t stream);
cudaError_t launch_gate_d64(const GateParams& params, const CUtensorMap& centroids, int top_k,
                            int max_gate_tiles, cudaStream_t stream);

}  // namespace mobius::hopper
