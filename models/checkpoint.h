#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/tensor.h"
#include "models/safetensors.h"

namespace mobius {

/// The weights of a checkpoint folder: `model.safetensors`, or the shards that
/// `model.safetensors.index.json` names. Files stay mapped as long as this lives; views point into
/// the mappings. Immutable, so any thread may read it. Movable.
class Checkpoint {
 public:
  /// Maps and validates every file. Throws std::runtime_error with one line.
  explicit Checkpoint(const std::filesystem::path& folder);

  /// The tensor of that name, whose shape must be [rows, cols]. Throws std::runtime_error with one
  /// line naming file, tensor, what was found and what was expected.
  HostTensor matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const;

  /// The tensor of that name, whose shape must be [size], as a matrix of one row.
  HostTensor vector(std::string_view name, std::int64_t size) const;

  bool has(std::string_view name) const;

  /// Asks the kernel to read all files into memory and to map them, so that the first step does not
  /// take page faults. Best effort.
  void prefault() const;

  /// Takes the files' pages out of this process's memory, for a caller that has made copies;
  /// reading brings them back.
  void release() const;

  /// Throws std::runtime_error, one line, where weights that were read are not in their file any
  /// more: what was computed with them is worth nothing. Cheap enough for every step.
  void check_intact() const;

  const std::vector<SafetensorsFile>& files() const { return files_; }

 private:
  HostTensor lookup(std::string_view name, const std::vector<std::int64_t>& shape) const;

  std::filesystem::path source_;  // the single file or the index, for messages
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::size_t, std::less<>> file_of_;  // tensor name to index in files_
};

}  // namespace mobius
