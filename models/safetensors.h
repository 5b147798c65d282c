#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/tensor.h"
#include "models/mapped_file.h"

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

/// A safetensors file, mapped (mapped_file.h says what happens when the file does not stay as it
/// is). Immutable, so any thread may read it.
class SafetensorsFile {
 public:
  /// Throws std::runtime_error with one line.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::size_t bytes() const { return file_.bytes().size(); }
  const SafetensorsEntries& entries() const { return entries_; }

  /// Address of an entry's data; valid as long as this object.
  const std::byte* data(const SafetensorsEntry& entry) const {
    return file_.bytes().data() + entry.offset;
  }

  const MappedFile& file() const { return file_; }

 private:
  std::filesystem::path path_;
  MappedFile file_;
  SafetensorsEntries entries_;
};

}  // namespace mobius
