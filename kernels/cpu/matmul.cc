#include "kernels/cpu/matmul.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>

#include "kernels/cpu/alignment.h"

namespace mobius {

namespace {

MatmulKernels kernels_of(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::avx2: return matmul_kernels_avx2();
    case Isa::avx512: return matmul_kernels_avx512();
    case Isa::avx512_bf16: return matmul_kernels_avx512_bf16();
#endif
    default: return matmul_kernels_generic();
  }
}

std::string shape_of(const Tensor& tensor) {
  return std::string(name_of(tensor.dtype)) + "[" + std::to_string(tensor.rows) + ", " +
         std::to_string(tensor.cols) + "]";
}

void check(const Tensor& out, const Tensor& in, const Weight& weight, bool accumulate) {
  const auto fail = [&](const char* problem) {
    throw std::invalid_argument(
        "matmul: " + std::string(problem) + ": out " + shape_of(out) + ", in " + shape_of(in) +
        ", weight [" + std::to_string(weight.rows) + ", " + std::to_string(weight.cols) + "]");
  };
  if (in.rows < 0 || in.cols < 1) fail("in has no columns");
  if (out.rows != in.rows) fail("out and in differ in rows");
  if (in.cols != weight.cols) fail("in's columns are not the weight's");
  if (out.cols != weight.rows) fail("out's columns are not the weight's rows");
  if (in.dtype != DType::bf16 && in.dtype != DType::f32) fail("in must be bf16 or f32");
  if (out.dtype != DType::bf16 && out.dtype != DType::f32) fail("out must be bf16 or f32");
  if (accumulate && out.dtype != DType::f32) fail("only an f32 out accumulates");
  std::int64_t rows = 0;
  for (const HostTensor& block : weight.row_blocks) {
    if (block.dtype != in.dtype) fail("the weight's type is not in's");
    if (block.cols != weight.cols) fail("a row block has other columns than its weight");
    rows += block.rows;
  }
  if (rows != weight.rows) fail("the row blocks do not add up to the weight");
}

constexpr std::size_t kTotalsBytes =
    static_cast<std::size_t>(kMatmulPanelRows * kMatmulPanelColumns) * sizeof(float);
constexpr int kTurns = 4;
constexpr std::int64_t kFewestColumns = 16;
constexpr std::int64_t kLongestRun = 16;

/// Panels of `columns` rows of w each that a row block falls into.
std::int64_t panels_of(const HostTensor& block, std::int64_t columns) {
  return (block.rows + columns - 1) / columns;
}

/// Columns of a panel: as many as fit the cache, but few enough that every thread gets some turns.
std::int64_t panel_columns(const Weight& weight, int threads) {
  std::int64_t columns = kMatmulPanelColumns;
  while (columns > kFewestColumns && weight.rows / columns < std::int64_t{kTurns} * threads) {
    columns /= 2;
  }
  return columns;
}

}  // namespace

Matmul::Matmul(Isa isa, ThreadPool& pool) : pool_(pool), kernels_(kernels_of(isa)) {}

void Matmul::FreeDeleter::operator()(std::byte* memory) const {
  std::free(memory);
}

std::size_t Matmul::scratch_bytes_per_thread(std::int64_t k) const {
  const std::int64_t chunks = (k + kMatmulChunk - 1) / kMatmulChunk;
  return kTotalsBytes +
         static_cast<std::size_t>(kMatmulTileRows * chunks * kMatmulChunk) * sizeof(float);
}

std::size_t Matmul::scratch_bytes(std::int64_t k) const {
  return static_cast<std::size_t>(pool_.size()) * scratch_bytes_per_thread(k);
}

void Matmul::reserve(std::int64_t k) {
  if (k <= reserved_k_) return;
  scratch_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, scratch_bytes(k))));
  reserved_k_ = scratch_ ? k : 0;
  if (!scratch_) throw std::bad_alloc();
}

void Matmul::operator()(const Tensor& out, const Tensor& in, const Weight& weight,
                        bool accumulate) {
  check(out, in, weight, accumulate);
  reserve(in.cols);
  const MatmulPanelFunction multiply = in.dtype == DType::bf16 ? kernels_.bf16 : kernels_.f32;
  const std::int64_t columns = panel_columns(weight, pool_.size());
  const std::int64_t row_panels = (in.rows + kMatmulPanelRows - 1) / kMatmulPanelRows;

  const auto run_panel = [&](const HostTensor& block, std::int64_t first_column,
                             std::int64_t column, std::int64_t row, std::byte* scratch) {
    const auto offset = [](std::int64_t elements, DType dtype) {
      return elements * static_cast<std::int64_t>(size_of(dtype));
    };
    MatmulPanel panel;
    panel.x = static_cast<const std::byte*>(in.data) + offset(row * in.cols, in.dtype);
    panel.w = static_cast<const std::byte*>(block.data) + offset(column * block.cols, block.dtype);
    panel.out = static_cast<std::byte*>(out.data) +
                offset(row * out.cols + first_column + column, out.dtype);
    panel.rows = std::min(kMatmulPanelRows, in.rows - row);
    panel.columns = std::min(columns, block.rows - column);
    panel.k = in.cols;
    panel.out_stride = out.cols;
    panel.out_bf16 = out.dtype == DType::bf16;
    panel.accumulate = accumulate;
    panel.totals = reinterpret_cast<float*>(scratch);
    panel.packed = scratch + kTotalsBytes;
    multiply(panel);
  };

  std::int64_t column_panels = 0;
  for (const HostTensor& block : weight.row_blocks) column_panels += panels_of(block, columns);
  // Neighbouring panels go to one thread, so that it reads memory in long runs; but each thread
  // gets several turns, since cores are not equally fast.
  const std::int64_t run_length = std::clamp<std::int64_t>(
      column_panels / (std::int64_t{kTurns} * pool_.size()), 1, kLongestRun);
  const std::int64_t runs = (column_panels + run_length - 1) / run_length;
  pool_.parallel_for(runs, [&](std::int64_t task, int thread) {
    std::byte* scratch =
        scratch_.get() + static_cast<std::size_t>(thread) * scratch_bytes_per_thread(reserved_k_);
    const std::int64_t begin = task * run_length;
    const std::int64_t end = std::min(begin + run_length, column_panels);
    std::int64_t block_begin = 0;
    std::int64_t first_column = 0;
    for (const HostTensor& block : weight.row_blocks) {
      const std::int64_t block_end = block_begin + panels_of(block, columns);
      for (std::int64_t panel = std::max(begin, block_begin); panel < std::min(end, block_end);
           ++panel) {
        for (std::int64_t row_panel = 0; row_panel < row_panels; ++row_panel) {
          run_panel(block, first_column, (panel - block_begin) * columns,
                    row_panel * kMatmulPanelRows, scratch);
        }
      }
      block_begin = block_end;
      first_column += block.rows;
    }
  });
}

}  // namespace mobius
