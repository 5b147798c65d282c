#include "kernels/cpu/ops.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>

#include "kernels/cpu/row_kernels.h"

namespace mobius {
namespace {

// Elements per task: some microseconds of work, well above the cost of handing a task out.
constexpr std::int64_t kTaskElements = 16384;

void require(bool condition, const std::string& what) {
  if (!condition) throw std::invalid_argument(what);
}

std::string shape_of(const Tensor& tensor) {
  return std::string(name_of(tensor.dtype)) + "[" + std::to_string(tensor.rows) + ", " +
         std::to_string(tensor.cols) + "]";
}

bool f32_or_bf16(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16;
}

void for_each_row(std::int64_t rows, std::int64_t cols, ThreadPool& pool,
                  const std::function<void(std::int64_t)>& body) {
  const std::int64_t per_task =
      std::max<std::int64_t>(1, kTaskElements / std::max<std::int64_t>(cols, 1));
  pool.parallel_for((rows + per_task - 1) / per_task, [&](std::int64_t task, int) {
    const std::int64_t end = std::min(rows, (task + 1) * per_task);
    for (std::int64_t row = task * per_task; row < end; ++row) body(row);
  });
}

/// The row's address if the tensor has this type, else null: what RowKernels want.
template <class T>
T* row_if(const Tensor& tensor, DType dtype, std::int64_t row) {
  return tensor.dtype == dtype ? static_cast<T*>(tensor.data) + row * tensor.cols : nullptr;
}

const std::byte* row_of(const Weight& weight, std::int64_t row) {
  for (const HostTensor& block : weight.row_blocks) {
    if (row < block.rows) {
      return static_cast<const std::byte*>(block.data) +
             row * block.cols * static_cast<std::int64_t>(size_of(block.dtype));
    }
    row -= block.rows;
  }
  return nullptr;
}

DType dtype_of(const Weight& weight, const char* operation) {
  require(!weight.row_blocks.empty(), std::string(operation) + ": the weight is empty");
  const DType dtype = weight.row_blocks.front().dtype;
  std::int64_t rows = 0;
  for (const HostTensor& block : weight.row_blocks) {
    require(block.dtype == dtype && block.cols == weight.cols,
            std::string(operation) + ": the weight's row blocks differ in type or columns");
    rows += block.rows;
  }
  require(rows == weight.rows, std::string(operation) + ": the row blocks do not add up");
  require(f32_or_bf16(dtype), std::string(operation) + ": the weight must be f32 or bf16");
  return dtype;
}

}  // namespace

const RowKernels& row_kernels(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::avx2: return row_kernels_avx2();
    case Isa::avx512:
    case Isa::avx512_bf16: return row_kernels_avx512();
#endif
    default: return row_kernels_generic();
  }
}

void embed(Tensor out, const Weight& table, std::span<const std::int32_t> tokens, ThreadPool& pool,
           Isa isa) {
  const DType dtype = dtype_of(table, "embed");
  require(out.dtype == DType::f32 && out.cols == table.cols &&
              out.rows == static_cast<std::int64_t>(tokens.size()),
          "embed: out is " + shape_of(out) + " for " + std::to_string(tokens.size()) +
              " tokens of " + std::to_string(table.cols) + " values");
  for (const std::int32_t token : tokens) {
    require(token >= 0 && token < table.rows, "embed: token " + std::to_string(token) +
                                                  ", the table has " + std::to_string(table.rows) +
                                                  " rows");
  }
  const RowKernels& kernels = row_kernels(isa);
  for_each_row(out.rows, out.cols, pool, [&](std::int64_t row) {
    const std::byte* in = row_of(table, tokens[static_cast<std::size_t>(row)]);
    auto* values = static_cast<float*>(out.data) + row * out.cols;
    if (dtype == DType::f32) {
      std::memcpy(values, in, static_cast<std::size_t>(out.cols) * sizeof(float));
    } else {
      kernels.bf16_to_f32(values, reinterpret_cast<const std::uint16_t*>(in), out.cols);
    }
  });
}

void rms_norm(Tensor out, Tensor in, const Weight& weight, float eps, ThreadPool& pool, Isa isa) {
  const DType dtype = dtype_of(weight, "rms_norm");
  require(in.dtype == DType::f32 && f32_or_bf16(out.dtype) && out.rows == in.rows &&
              out.cols == in.cols && in.cols > 0 && weight.rows == 1 && weight.cols == in.cols,
          "rms_norm: out " + shape_of(out) + ", in " + shape_of(in) + ", weight [" +
              std::to_string(weight.rows) + ", " + std::to_string(weight.cols) + "]");
  const RowKernels& kernels = row_kernels(isa);
  const std::byte* scale = row_of(weight, 0);
  const auto* scale_f32 = dtype == DType::f32 ? reinterpret_cast<const float*>(scale) : nullptr;
  const auto* scale_bf16 =
      dtype == DType::bf16 ? reinterpret_cast<const std::uint16_t*>(scale) : nullptr;
  for_each_row(in.rows, in.cols, pool, [&](std::int64_t row) {
    kernels.rms_norm(row_if<float>(out, DType::f32, row),
                     row_if<std::uint16_t>(out, DType::bf16, row),
                     row_if<const float>(in, DType::f32, row), scale_f32, scale_bf16, in.cols, eps);
  });
}

void silu_mul(Tensor out, Tensor gate_up, ThreadPool& pool, Isa isa) {
  require(gate_up.dtype == DType::f32 && f32_or_bf16(out.dtype) && out.rows == gate_up.rows &&
              gate_up.cols == 2 * out.cols,
          "silu_mul: out " + shape_of(out) + ", gate_up " + shape_of(gate_up));
  const RowKernels& kernels = row_kernels(isa);
  for_each_row(out.rows, gate_up.cols, pool, [&](std::int64_t row) {
    const float* gate = row_if<const float>(gate_up, DType::f32, row);
    kernels.silu_mul(row_if<float>(out, DType::f32, row),
                     row_if<std::uint16_t>(out, DType::bf16, row), gate, gate + out.cols, out.cols);
  });
}

void gather_rows(Tensor out, Tensor in, std::span<const std::int32_t> rows, ThreadPool& pool) {
  require(out.dtype == in.dtype && out.cols == in.cols &&
              out.rows == static_cast<std::int64_t>(rows.size()),
          "gather_rows: out " + shape_of(out) + ", in " + shape_of(in) + ", " +
              std::to_string(rows.size()) + " rows");
  for (const std::int32_t row : rows) {
    require(row >= 0 && row < in.rows,
            "gather_rows: row " + std::to_string(row) + " of " + std::to_string(in.rows));
  }
  const std::size_t bytes = static_cast<std::size_t>(in.cols) * size_of(in.dtype);
  for_each_row(out.rows, out.cols, pool, [&](std::int64_t row) {
    const auto from = static_cast<std::size_t>(rows[static_cast<std::size_t>(row)]);
    std::memcpy(static_cast<std::byte*>(out.data) + static_cast<std::size_t>(row) * bytes,
                static_cast<const std::byte*>(in.data) + from * bytes, bytes);
  });
}

}  // namespace mobius
