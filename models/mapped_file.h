#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

namespace mobius {

/// A file, mapped read-only and shared with every other process that maps it. Immutable while the
/// file is left alone, so any thread may read it. Movable.
///
/// Bytes that the file no longer has (it was truncated) or that cannot be read from the disk would
/// end the process by SIGBUS: they read as zeros instead, and `lost` says so. Whoever computes with
/// the bytes asks before the result counts. What is written into the file shows in the mapping, and
/// nobody notices.
class MappedFile {
 public:
  /// Throws std::runtime_error with one line, where it cannot be mapped or is empty. The first one
  /// takes over the process's SIGBUS handler; faults elsewhere go on to the one before.
  explicit MappedFile(const std::filesystem::path& path);

  std::span<const std::byte> bytes() const;

  /// Something of it was read that is not there. It stays so.
  bool lost() const;

  /// Asks the kernel to read the file and map its pages now. Best effort.
  void prefault() const;

  /// Takes the file's pages out of this process's memory; reading brings them back.
  void release() const;

 private:
  struct Mapping;
  std::shared_ptr<const Mapping> mapping_;
};

}  // namespace mobius
