// A whole safetensors file.
#include <set>
#include <stdexcept>

#include "models/safetensors.h"
#include "tests/fuzz/target.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace mobius;
  const std::span file(reinterpret_cast<const std::byte*>(data), size);
  SafetensorsEntries entries;
  try {
    entries = parse_safetensors(file, "file");
  } catch (const std::runtime_error& error) {
    require_one_line(error.what());
    return 0;
  }
  // What is accepted lies inside the file, is as long as its shape says, and overlaps nothing.
  std::set<std::pair<std::size_t, std::size_t>> ranges;
  for (const auto& [name, entry] : entries) {
    require(entry.offset <= size && entry.bytes <= size - entry.offset,
            "a tensor lies in the file");
    std::size_t bytes = size_of(entry.dtype);
    for (const std::int64_t extent : entry.shape) {
      require(extent >= 0, "an extent is not negative");
      bytes *= static_cast<std::size_t>(extent);
    }
    require(bytes == entry.bytes, "a tensor is as long as its shape says");
    if (bytes > 0) require(ranges.emplace(entry.offset, bytes).second, "no two tensors are one");
  }
  std::size_t end = 0;
  for (const auto& [offset, bytes] : ranges) {
    require(offset >= end, "tensors do not overlap");
    end = offset + bytes;
  }
  return 0;
}
