#include <stdexcept>

#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/check.h"
#include "kernels/cuda/load.cuh"
#include "kernels/cuda/ops.h"

namespace mobius {
namespace {

constexpr int kThreads = 256;

__device__ void store(float* p, float x) {
  *p = x;
}
__device__ void store(__nv_bfloat16* p, float x) {
  *p = __float2bfloat16_rn(x);
}
__device__ void store4(float* p, float4 x) {
  *reinterpret_cast<float4*>(p) = x;
}
__device__ void store4(__nv_bfloat16* p, float4 x) {
  union {
    __nv_bfloat162 pair[2];
    uint2 bits;
  } packed;
  packed.pair[0] = __floats2bfloat162_rn(x.x, x.y);
  packed.pair[1] = __floats2bfloat162_rn(x.z, x.w);
  *reinterpret_cast<uint2*>(p) = packed.bits;
}

template <class To, class From>
__global__ void convert_kernel(To* to, const From* from, std::int64_t count) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    store(to + i, load(from + i));
  }
}

template <class T>
__global__ void embed_kernel(float* out, const T* table, const std::int32_t* tokens,
                             std::int64_t cols) {
  hopper::join_chain();
  const T* in = table + tokens[blockIdx.x] * cols;
  float* row = out + blockIdx.x * cols;
  for (std::int64_t i = threadIdx.x; i < cols; i += blockDim.x) row[i] = load(in + i);
}

/// The sum of a value over all threads, in an order that depends on the block's size alone. Every
/// thread gets it.
__device__ float block_sum(float value) {
  __shared__ float parts[kThreads / 32];
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffU, value, offset);
  }
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < kThreads / 32; ++i) sum += parts[i];
  return sum;
}

__device__ float4 load4(const float* p) {
  return *reinterpret_cast<const float4*>(p);
}
__device__ float4 load4(const __nv_bfloat16* p) {
  return make_float4(load(p), load(p + 1), load(p + 2), load(p + 3));
}

/// Columns of a row that a block keeps in registers, four by four.
constexpr int kHeld = 8;
constexpr std::int64_t kMostHeldColumns = std::int64_t{4} * kHeld * kThreads;

/// One block a row. Up to 8,192 columns are read once; the weight is on its way before the kernel
/// before has finished.
template <class Out, class W>
__global__ void __launch_bounds__(kThreads)
    rms_norm_kernel(Out* out, const float* in, const W* weight, std::int64_t cols, float eps) {
  const float* row = in + blockIdx.x * cols;
  Out* to = out + blockIdx.x * cols;
  float squares = 0;
  if (cols % 4 == 0 && cols <= kMostHeldColumns) {
    float4 x[kHeld];
    float4 w[kHeld];
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
      const std::int64_t i = threadIdx.x + j * kThreads;
      if (i < cols / 4) w[j] = load4(weight + 4 * i);
    }
    hopper::join_chain();
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
      const std::int64_t i = threadIdx.x + j * kThreads;
      x[j] = make_float4(0, 0, 0, 0);
      if (i < cols / 4) x[j] = load4(row + 4 * i);
    }
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
      squares += x[j].x * x[j].x + x[j].y * x[j].y + x[j].z * x[j].z + x[j].w * x[j].w;
    }
    const float scale = 1.0F / sqrtf(block_sum(squares) / static_cast<float>(cols) + eps);
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
      const std::int64_t i = threadIdx.x + j * kThreads;
      if (i >= cols / 4) continue;
      store4(to + 4 * i, make_float4(x[j].x * scale * w[j].x, x[j].y * scale * w[j].y,
                                     x[j].z * scale * w[j].z, x[j].w * scale * w[j].w));
    }
    return;
  }
  hopper::join_chain();
  for (std::int64_t i = threadIdx.x; i < cols; i += kThreads) squares += row[i] * row[i];
  const float scale = 1.0F / sqrtf(block_sum(squares) / static_cast<float>(cols) + eps);
  for (std::int64_t i = threadIdx.x; i < cols; i += kThreads) {
    store(to + i, row[i] * scale * load(weight + i));
  }
}

__device__ float silu_mul(float gate, float up) {
  return gate / (1.0F + expf(-gate)) * up;
}

template <class Out>
__global__ void silu_mul_kernel(Out* out, const float* gate_up, std::int64_t cols) {
  hopper::join_chain();
  const float* gate = gate_up + std::int64_t{blockIdx.x} * 2 * cols;
  const float* up = gate + cols;
  Out* row = out + std::int64_t{blockIdx.x} * cols;
  const std::int64_t i = std::int64_t{blockIdx.y} * kThreads + threadIdx.x;
  if (cols % 4 == 0) {
    if (i >= cols / 4) return;
    const float4 g = reinterpret_cast<const float4*>(gate)[i];
    const float4 u = reinterpret_cast<const float4*>(up)[i];
    store4(row + 4 * i, make_float4(silu_mul(g.x, u.x), silu_mul(g.y, u.y), silu_mul(g.z, u.z),
                                    silu_mul(g.w, u.w)));
    return;
  }
  for (std::int64_t at = i; at < cols; at += std::int64_t{gridDim.y} * kThreads) {
    store(row + at, silu_mul(gate[at], up[at]));
  }
}

template <class T>
__global__ void gather_rows_kernel(T* out, const T* in, const std::int32_t* rows,
                                   std::int64_t cols) {
  hopper::join_chain();
  const T* from = in + rows[blockIdx.x] * cols;
  T* to = out + blockIdx.x * cols;
  for (std::int64_t i = threadIdx.x; i < cols; i += blockDim.x) to[i] = from[i];
}

template <class To>
void convert_to(To* to, const void* from, DType from_type, std::int64_t count,
                cudaStream_t stream) {
  const auto blocks =
      static_cast<unsigned>(std::min<std::int64_t>((count + kThreads - 1) / kThreads, 132 * 16));
  switch (from_type) {
    case DType::f32:
      convert_kernel<<<blocks, kThreads, 0, stream>>>(to, static_cast<const float*>(from), count);
      break;
    case DType::bf16:
      convert_kernel<<<blocks, kThreads, 0, stream>>>(to, static_cast<const __nv_bfloat16*>(from),
                                                      count);
      break;
    case DType::f16:
      convert_kernel<<<blocks, kThreads, 0, stream>>>(to, static_cast<const __half*>(from), count);
      break;
    case DType::e4m3: throw std::invalid_argument("convert: e4m3 is read by products alone");
  }
}

template <class Out>
void rms_norm_to(Out* out, Tensor in, const void* weight, DType weight_type, float eps,
                 cudaStream_t stream) {
  const auto rows = static_cast<unsigned>(in.rows);
  const auto* values = static_cast<const float*>(in.data);
  if (weight_type == DType::f32) {
    launch_in_chain<rms_norm_kernel<Out, float>>(rows, kThreads, stream, out, values,
                                                 static_cast<const float*>(weight), in.cols, eps);
  } else {
    launch_in_chain<rms_norm_kernel<Out, __nv_bfloat16>>(rows, kThreads, stream, out, values,
                                                         static_cast<const __nv_bfloat16*>(weight),
                                                         in.cols, eps);
  }
}

}  // namespace

void launch_convert(void* to, DType to_type, const void* from, DType from_type, std::int64_t count,
                    cudaStream_t stream) {
  if (count == 0) return;
  if (to_type == DType::f32) {
    convert_to(static_cast<float*>(to), from, from_type, count, stream);
  } else if (to_type == DType::bf16) {
    convert_to(static_cast<__nv_bfloat16*>(to), from, from_type, count, stream);
  } else {
    throw std::invalid_argument("convert: f16 is no type of the device's");
  }
  MOBIUS_CUDA_LAUNCHED();
}

void launch_embed(Tensor out, const void* table, DType table_type, const std::int32_t* tokens,
                  cudaStream_t stream) {
  if (out.rows == 0) return;
  auto* values = static_cast<float*>(out.data);
  const auto rows = static_cast<unsigned>(out.rows);
  if (table_type == DType::f32) {
    launch_in_chain<embed_kernel<float>>(rows, kThreads, stream, values,
                                         static_cast<const float*>(table), tokens, out.cols);
  } else {
    launch_in_chain<embed_kernel<__nv_bfloat16>>(
        rows, kThreads, stream, values, static_cast<const __nv_bfloat16*>(table), tokens, out.cols);
  }
}

void launch_rms_norm(Tensor out, Tensor in, const void* weight, DType weight_type, float eps,
                     cudaStream_t stream) {
  if (in.rows == 0) return;
  if (out.dtype == DType::f32) {
    rms_norm_to(static_cast<float*>(out.data), in, weight, weight_type, eps, stream);
  } else {
    rms_norm_to(static_cast<__nv_bfloat16*>(out.data), in, weight, weight_type, eps, stream);
  }
}

void launch_silu_mul(Tensor out, Tensor gate_up, cudaStream_t stream) {
  if (out.rows == 0) return;
  const std::int64_t vectors = (out.cols + 3) / 4;
  const dim3 grid(static_cast<unsigned>(out.rows),
                  static_cast<unsigned>((vectors + kThreads - 1) / kThreads));
  const auto* values = static_cast<const float*>(gate_up.data);
  if (out.dtype == DType::f32) {
    launch_in_chain<silu_mul_kernel<float>>(grid, kThreads, stream, static_cast<float*>(out.data),
                                            values, out.cols);
  } else {
    launch_in_chain<silu_mul_kernel<__nv_bfloat16>>(
        grid, kThreads, stream, static_cast<__nv_bfloat16*>(out.data), values, out.cols);
  }
}

void launch_gather_rows(Tensor out, Tensor in, const std::int32_t* rows, cudaStream_t stream) {
  if (out.rows == 0) return;
  const auto count = static_cast<unsigned>(out.rows);
  if (size_of(in.dtype) == 4) {
    launch_in_chain<gather_rows_kernel<float>>(count, kThreads, stream,
                                               static_cast<float*>(out.data),
                                               static_cast<const float*>(in.data), rows, in.cols);
  } else {
    launch_in_chain<gather_rows_kernel<__half>>(count, kThreads, stream,
                                                static_cast<__half*>(out.data),
                                                static_cast<const __half*>(in.data), rows, in.cols);
  }
}

}  // namespace mobius
