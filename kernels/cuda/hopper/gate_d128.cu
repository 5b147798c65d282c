#include "kernels/cuda/hopper/gate.cuh"

namespace mobius::hopper {

cudaError_t launch_gate_d128(const GateParams& params, const CUtensorMap& centroids, int top_k,
                             int max_gate_tiles, cudaStream_t stream) {
  return launch_gate_dim<128>(params, centroids, top_k, max_gate_tiles, stream);
}

}  // namespace mobius::hopper
