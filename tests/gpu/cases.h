#pragma once

// What the cases share: matrices on the device between poisoned margins, and the table of results.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace mobius::gpu {

/// One line of the table.
struct CaseResult {
  std::string group;   ///< e.g. "rms_norm"
  std::string name;    ///< sizes and types
  std::string detail;  ///< what was measured
  bool passed = false;
};

class Report {
 public:
  /// Prints the line and keeps it.
  void add(CaseResult result);
  const std::vector<CaseResult>& results() const { return results_; }
  bool passed() const;

 private:
  std::vector<CaseResult> results_;
};

struct Options {
  bool small = false;  ///< sizes for compute-sanitizer
  std::string filter;  ///< groups whose name contains it
};

/// A matrix in device memory, all ones (NaN) with a margin of ones around it until it is written.
class DeviceMatrix {
 public:
  DeviceMatrix(DType dtype, std::int64_t rows, std::int64_t cols);
  static DeviceMatrix random(DType dtype, std::int64_t rows, std::int64_t cols,
                             std::mt19937_64& random, float scale = 1.0F);

  Tensor tensor() const { return {data_, dtype_, rows_, cols_}; }
  void poison();
  /// Rounded to the type. values.size() == rows * cols.
  void set(std::span<const float> values);
  std::vector<float> values() const;
  std::vector<std::byte> bytes() const;
  /// Nothing outside was written.
  bool margins_intact() const;

 private:
  DType dtype_;
  std::int64_t rows_;
  std::int64_t cols_;
  std::shared_ptr<void> memory_;
  void* data_ = nullptr;
};

std::vector<float> random_values(std::size_t count, std::mt19937_64& random, float scale = 1.0F);
std::vector<float> rounded(DType dtype, std::span<const float> values);
/// What a matrix of rows of `cols` values has left once it is quantised to fp8.
std::vector<float> fp8_rounded(std::span<const float> values, std::int64_t cols);
/// Elements of `dtype` as they lie in memory.
std::vector<std::byte> packed(DType dtype, std::span<const float> values);
std::vector<float> unpacked(DType dtype, std::span<const std::byte> bytes);

/// ||got - want|| / ||want||; infinity where a value of `got` is not finite.
double relative_error(std::span<const float> got, std::span<const double> want);

std::string text(double value);

// Groups of cases.
void run_ops_cases(const Options& options, Report& report);
void run_matmul_cases(const Options& options, Report& report);
void run_matvec_cases(const Options& options, Report& report);
void run_fp8_cases(const Options& options, Report& report);
void run_attention_cases(const Options& options, Report& report);
void run_kv_fp8_cases(const Options& options, Report& report);
void run_backend_cases(const Options& options, Report& report);
void run_routing_cases(const Options& options, Report& report);
void run_sampling_cases(const Options& options, Report& report);

}  // namespace mobius::gpu
