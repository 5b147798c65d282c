#include "tests/gpu/cases.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "kernels/bf16.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/device.h"
#include "kernels/fp8.h"
#include "kernels/oracle/ops.h"

namespace mobius::gpu {
namespace {

constexpr std::size_t kMargin = 1024;

}  // namespace

void Report::add(CaseResult result) {
  std::printf("%-6s %-12s %-58s %s\n", result.passed ? "ok" : "FAILED", result.group.c_str(),
              result.name.c_str(), result.detail.c_str());
  std::fflush(stdout);
  results_.push_back(std::move(result));
}

bool Report::passed() const {
  return !results_.empty() && std::all_of(results_.begin(), results_.end(),
                                          [](const CaseResult& r) { return r.passed; });
}

DeviceMatrix::DeviceMatrix(DType dtype, std::int64_t rows, std::int64_t cols)
    : dtype_(dtype),
      rows_(rows),
      cols_(cols),
      memory_(allocate_device(2 * kMargin + Tensor{nullptr, dtype, rows, cols}.bytes(), "a test")),
      data_(static_cast<std::byte*>(memory_.get()) + kMargin) {
  poison();
}

DeviceMatrix DeviceMatrix::random(DType dtype, std::int64_t rows, std::int64_t cols,
                                  std::mt19937_64& random, float scale) {
  DeviceMatrix matrix(dtype, rows, cols);
  matrix.set(random_values(static_cast<std::size_t>(rows * cols), random, scale));
  return matrix;
}

void DeviceMatrix::poison() {
  MOBIUS_CUDA(cudaMemset(memory_.get(), 0xff, tensor().bytes() + 2 * kMargin));
  MOBIUS_CUDA(cudaDeviceSynchronize());
}

void DeviceMatrix::set(std::span<const float> values) {
  const std::vector<std::byte> data = packed(dtype_, values);
  MOBIUS_CUDA(cudaMemcpy(data_, data.data(), data.size(), cudaMemcpyHostToDevice));
  // A copy from pageable memory returns before it has arrived, and the operations' streams do not
  // wait for the default one.
  MOBIUS_CUDA(cudaDeviceSynchronize());
}

std::vector<std::byte> DeviceMatrix::bytes() const {
  std::vector<std::byte> data(tensor().bytes());
  MOBIUS_CUDA(cudaDeviceSynchronize());
  MOBIUS_CUDA(cudaMemcpy(data.data(), data_, data.size(), cudaMemcpyDeviceToHost));
  return data;
}

std::vector<float> DeviceMatrix::values() const {
  return unpacked(dtype_, bytes());
}

bool DeviceMatrix::margins_intact() const {
  std::vector<std::byte> all(tensor().bytes() + 2 * kMargin);
  MOBIUS_CUDA(cudaDeviceSynchronize());
  MOBIUS_CUDA(cudaMemcpy(all.data(), memory_.get(), all.size(), cudaMemcpyDeviceToHost));
  const auto ones = [](std::span<const std::byte> bytes) {
    return std::all_of(bytes.begin(), bytes.end(),
                       [](std::byte b) { return b == std::byte{0xff}; });
  };
  return ones(std::span(all).first(kMargin)) && ones(std::span(all).last(kMargin));
}

std::vector<float> random_values(std::size_t count, std::mt19937_64& random, float scale) {
  std::normal_distribution<float> normal(0.0F, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

std::vector<float> rounded(DType dtype, std::span<const float> values) {
  std::vector<float> result;
  result.reserve(values.size());
  for (const float value : values) result.push_back(round_to(dtype, value));
  return result;
}

std::vector<float> fp8_rounded(std::span<const float> values, std::int64_t cols) {
  const auto length = static_cast<std::size_t>(cols);
  std::vector<float> result;
  result.reserve(values.size());
  for (std::size_t first = 0; first < values.size(); first += length) {
    const auto row = values.subspan(first, length);
    float largest = 0;
    for (const float value : row) largest = std::max(largest, std::fabs(value));
    const int exponent = fp8_exponent(largest);
    for (const float value : row) {
      result.push_back(from_e4m3(to_e4m3(value * power_of_two(-exponent))) *
                       power_of_two(exponent));
    }
  }
  return result;
}

std::vector<std::byte> packed(DType dtype, std::span<const float> values) {
  std::vector<std::byte> bytes(values.size() * size_of(dtype));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::f32) {
      std::memcpy(bytes.data() + 4 * i, &values[i], 4);
    } else if (dtype == DType::bf16) {
      const std::uint16_t bits = to_bf16(values[i]);
      std::memcpy(bytes.data() + 2 * i, &bits, 2);
    } else {
      const auto half = static_cast<_Float16>(values[i]);
      std::memcpy(bytes.data() + 2 * i, &half, 2);
    }
  }
  return bytes;
}

std::vector<float> unpacked(DType dtype, std::span<const std::byte> bytes) {
  std::vector<float> values(bytes.size() / size_of(dtype));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::f32) {
      std::memcpy(&values[i], bytes.data() + 4 * i, 4);
    } else {
      std::uint16_t bits = 0;
      std::memcpy(&bits, bytes.data() + 2 * i, 2);
      values[i] = from_bf16(bits);
    }
  }
  return values;
}

double relative_error(std::span<const float> got, std::span<const double> want) {
  double difference = 0;
  double norm = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (!std::isfinite(got[i])) return std::numeric_limits<double>::infinity();
    difference += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
    norm += want[i] * want[i];
  }
  if (got.size() != want.size()) return std::numeric_limits<double>::infinity();
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

std::string text(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.3g", value);
  return buffer;
}

}  // namespace mobius::gpu
