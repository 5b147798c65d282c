#include "kernels/cuda/device.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

#include "kernels/cuda/check.h"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/ops.h"

namespace mobius {
namespace {

constexpr std::size_t kSlabBytes = std::size_t{32} << 20;
constexpr std::size_t kSlabAlignment = 256;
/// Reading a mapped file costs page faults, so a single thread does not reach the bus's speed.
constexpr std::size_t kCopyThreads = 4;

std::string mebibytes(std::size_t bytes) {
  return std::to_string((bytes + (std::size_t{1} << 20) - 1) >> 20) + " MiB";
}

void copy_in_parallel(std::byte* to, const std::byte* from, std::size_t bytes) {
  constexpr std::size_t kLeast = std::size_t{1} << 20;
  const std::size_t parts = std::clamp<std::size_t>(bytes / kLeast, 1, kCopyThreads);
  const std::size_t part = (bytes + parts - 1) / parts;
  std::vector<std::jthread> threads;
  for (std::size_t begin = part; begin < bytes; begin += part) {
    threads.emplace_back(
        [=] { std::memcpy(to + begin, from + begin, std::min(part, bytes - begin)); });
  }
  std::memcpy(to, from, std::min(part, bytes));
}

}  // namespace

void check_cuda(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status) + " (" +
                           cudaGetErrorName(status) + ") in " + call + " at " + file + ":" +
                           std::to_string(line));
}

void check_cublas(cublasStatus_t status, const char* call, const char* file, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw std::runtime_error(std::string("cuBLASLt: ") + cublasLtGetStatusString(status) + " in " +
                           call + " at " + file + ":" + std::to_string(line));
}

std::int32_t multiprocessors() {
  static const std::int32_t count = [] {
    int device = 0;
    int found = 0;
    MOBIUS_CUDA(cudaGetDevice(&device));
    MOBIUS_CUDA(cudaDeviceGetAttribute(&found, cudaDevAttrMultiProcessorCount, device));
    return found;
  }();
  return count;
}

std::shared_ptr<void> allocate_device(std::size_t bytes, std::string_view purpose) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, std::max<std::size_t>(bytes, 1));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // not sticky: the device is fine
    std::size_t free = 0;
    std::size_t total = 0;
    MOBIUS_CUDA(cudaMemGetInfo(&free, &total));
    throw std::runtime_error("no device memory for " + std::string(purpose) + ": " +
                             mebibytes(bytes) + " needed, " + mebibytes(free) + " free");
  }
  MOBIUS_CUDA(status);
  return {memory, [](void* pointer) { cudaFree(pointer); }};
}

PinnedBuffer::PinnedBuffer(std::size_t bytes) : bytes_(bytes) {
  void* memory = nullptr;
  MOBIUS_CUDA(cudaMallocHost(&memory, std::max<std::size_t>(bytes, 1)));
  memory_ = {memory, [](void* pointer) { cudaFreeHost(pointer); }};
}

CudaStream::CudaStream() {
  MOBIUS_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
}

CudaStream::~CudaStream() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void CudaStream::synchronize() const {
  MOBIUS_CUDA(cudaStreamSynchronize(stream_));
}

CudaEvent::CudaEvent() {
  MOBIUS_CUDA(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
}

CudaEvent::~CudaEvent() {
  if (event_ != nullptr) cudaEventDestroy(event_);
}

void CudaEvent::record(const CudaStream& stream) {
  MOBIUS_CUDA(cudaEventRecord(event_, stream.get()));
}

void CudaEvent::synchronize() const {
  MOBIUS_CUDA(cudaEventSynchronize(event_));
}

std::shared_ptr<void> SlabAllocator::allocate(std::size_t bytes, std::string_view purpose) {
  const std::size_t rounded = (bytes + kSlabAlignment - 1) / kSlabAlignment * kSlabAlignment;
  if (rounded > kSlabBytes / 4) return allocate_device(bytes, purpose);
  if (slab_ == nullptr || used_ + rounded > kSlabBytes) {
    slab_ = allocate_device(kSlabBytes, purpose);
    used_ = 0;
  }
  void* piece = static_cast<std::byte*>(slab_.get()) + used_;
  used_ += rounded;
  return {slab_, piece};
}

Uploader::Uploader(const CudaStream& stream) : stream_(stream) {
  for (PinnedBuffer& buffer : pinned_) buffer = PinnedBuffer(kChunkBytes);
}

int Uploader::fill(const void* from, std::size_t bytes) {
  const int buffer = next_;
  next_ = 1 - next_;
  copied_[buffer].synchronize();
  copy_in_parallel(pinned_[buffer].data(), static_cast<const std::byte*>(from), bytes);
  return buffer;
}

const void* Uploader::stage(int buffer, std::size_t bytes) {
  if (staging_[buffer] == nullptr) {
    staging_[buffer] = allocate_device(kChunkBytes, "conversion of weights");
  }
  MOBIUS_CUDA(cudaMemcpyAsync(staging_[buffer].get(), pinned_[buffer].data(), bytes,
                              cudaMemcpyHostToDevice, stream_.get()));
  return staging_[buffer].get();
}

void Uploader::upload(void* to, DType to_type, const void* from, DType from_type,
                      std::int64_t count) {
  if (to_type != DType::f32 && to_type != DType::bf16) {
    throw std::invalid_argument("upload: " + std::string(name_of(to_type)) +
                                " is no type of the device's");
  }
  const std::size_t in = size_of(from_type);
  const auto chunk = static_cast<std::int64_t>(kChunkBytes / in);
  for (std::int64_t first = 0; first < count; first += chunk) {
    const std::int64_t elements = std::min(chunk, count - first);
    const std::size_t bytes = static_cast<std::size_t>(elements) * in;
    const int buffer =
        fill(static_cast<const std::byte*>(from) + static_cast<std::size_t>(first) * in, bytes);
    void* target = static_cast<std::byte*>(to) + static_cast<std::size_t>(first) * size_of(to_type);
    if (from_type == to_type) {
      MOBIUS_CUDA(cudaMemcpyAsync(target, pinned_[buffer].data(), bytes, cudaMemcpyHostToDevice,
                                  stream_.get()));
    } else {
      launch_convert(target, to_type, stage(buffer, bytes), from_type, elements, stream_.get());
    }
    copied_[buffer].record(stream_);
  }
}

void Uploader::quantise(void* codes, float* scales, const void* from, DType from_type,
                        std::int64_t rows, std::int64_t cols) {
  const std::size_t row_bytes = static_cast<std::size_t>(cols) * size_of(from_type);
  const auto chunk = static_cast<std::int64_t>(kChunkBytes / row_bytes);
  if (chunk == 0) throw std::invalid_argument("upload: a row has more than 32 MiB");
  for (std::int64_t first = 0; first < rows; first += chunk) {
    const std::int64_t some = std::min(chunk, rows - first);
    const std::size_t bytes = static_cast<std::size_t>(some) * row_bytes;
    const int buffer = fill(
        static_cast<const std::byte*>(from) + static_cast<std::size_t>(first) * row_bytes, bytes);
    launch_quantise(static_cast<std::byte*>(codes) + first * cols, scales + first,
                    stage(buffer, bytes), from_type, some, cols, stream_.get());
    copied_[buffer].record(stream_);
  }
}

}  // namespace mobius
