#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/tensor.h"

namespace mobius {

/// Where one tensor lies inside a safetensors file.
struct SafetensorsEntry {
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::size_t offset = 0;  ///< from the start of the file
  std::size_t bytes = 0;
};

using SafetensorsEntries = std::map<std::string, SafetensorsEntry, std::less<>>;

/// Reads the header of a whole safetensors file in memory: 8 bytes header length (little endian), a
/// JSON object {name: {dtype, shape, data_offsets}}, then the data
/// (https://huggingface.co/docs/safetensors). Accepts BF16, F16 and F32 tensors whose offsets tile
/// the data exactly. Throws std::runtime_error with one line, which begins with `file_name`, for
/// anything else. Reads the header's bytes only.
SafetensorsEntries parse_safetensors(std::span<const std::byte> file, std::string_view file_name);

/// A safetensors file, mapped read-only and shared with every other process that maps it.
/// Immutable, so any thread may read it.
class SafetensorsFile {
 public:
  /// Throws std::runtime_error with one line.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::size_t bytes() const { return bytes_; }
  const SafetensorsEntries& entries() const { return entries_; }

  /// Address of an entry's data; valid as long as this object.
  const std::byte* data(const SafetensorsEntry& entry) const {
    return mapping_.get() + entry.offset;
  }

  /// Asks the kernel to read the file and map its pages now. Best effort.
  void prefault() const;

  /// Takes the file's pages out of this process's memory; reading brings them back.
  void release() const;

 private:
  std::filesystem::path path_;
  std::shared_ptr<const std::byte> mapping_;
  std::size_t bytes_ = 0;
  SafetensorsEntries entries_;
};

}  // namespace mobius
