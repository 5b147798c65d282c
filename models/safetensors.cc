#include "models/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <stdexcept>
#include <utility>

#include "models/json_file.h"

namespace mobius {
namespace {

using nlohmann::json;

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr std::size_t kMaxRank = 8;

[[noreturn]] void fail(const std::string& message) {
  throw std::runtime_error(message);
}

std::optional<DType> parse_dtype(const json& name) {
  if (name == "BF16") return DType::bf16;
  if (name == "F16") return DType::f16;
  if (name == "F32") return DType::f32;
  return std::nullopt;
}

/// A field that must be there, with a message otherwise.
const json& field(const json& entry, const char* name, const std::string& where) {
  const auto found = entry.find(name);
  if (found == entry.end()) fail(where + ": \"" + name + "\" is missing");
  return *found;
}

std::vector<std::int64_t> parse_shape(const json& value, const std::string& where) {
  const auto refuse = [&] {
    fail(where + ": shape is " + shown(value) + ", expected a list of at most 8 sizes");
  };
  if (!value.is_array() || value.size() > kMaxRank) refuse();
  std::vector<std::int64_t> shape;
  for (const json& size : value) {
    if (!size.is_number_unsigned() ||
        size.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) {
      refuse();
    }
    shape.push_back(size.get<std::int64_t>());
  }
  return shape;
}

SafetensorsEntry parse_entry(const json& value, const std::string& where, std::size_t data_start,
                             std::size_t data_bytes) {
  if (!value.is_object()) fail(where + ": found " + shown(value) + ", expected an object");
  SafetensorsEntry entry;
  const json& dtype = field(value, "dtype", where);
  const std::optional<DType> known = parse_dtype(dtype);
  if (!known) fail(where + ": dtype is " + shown(dtype) + ", expected BF16, F16 or F32");
  entry.dtype = *known;
  entry.shape = parse_shape(field(value, "shape", where), where);

  const json& offsets = field(value, "data_offsets", where);
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    fail(where + ": data_offsets is " + shown(offsets) + ", expected [begin, end]");
  }
  const auto begin = offsets[0].get<std::uint64_t>();
  const auto end = offsets[1].get<std::uint64_t>();
  if (begin > end) {
    fail(where + ": data_offsets is " + shown(offsets) + ", expected begin <= end");
  }
  if (end > data_bytes) {
    fail(where + ": ends at byte " + std::to_string(end) + " of the data, but the file has only " +
         std::to_string(data_bytes) + " bytes of data (truncated?)");
  }
  std::uint64_t expected = size_of(entry.dtype);
  for (const std::int64_t size : entry.shape) {
    if (__builtin_mul_overflow(expected, static_cast<std::uint64_t>(size), &expected)) {
      fail(where + ": shape " + shown(value["shape"]) + " has more bytes than a file can have");
    }
  }
  if (end - begin != expected) {
    fail(where + ": has " + std::to_string(end - begin) + " bytes, expected " +
         std::to_string(expected) + " for shape " + shown(value["shape"]) + " of " + shown(dtype));
  }
  entry.offset = data_start + begin;
  entry.bytes = end - begin;
  if (entry.offset % size_of(entry.dtype) != 0) {
    fail(where + ": data begins at byte " + std::to_string(entry.offset) +
         " of the file, expected a multiple of its element size (write the file again with a newer "
         "safetensors)");
  }
  return entry;
}

/// Tensors must tile the data: no overlap, no hole, nothing left over.
void check_tiling(const SafetensorsEntries& entries, const std::string& file_name,
                  std::size_t data_start, std::size_t file_bytes) {
  std::vector<const SafetensorsEntries::value_type*> ordered;
  ordered.reserve(entries.size());
  for (const auto& entry : entries) ordered.push_back(&entry);
  std::sort(ordered.begin(), ordered.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.offset, a->second.bytes) <
           std::pair(b->second.offset, b->second.bytes);
  });
  std::size_t expected = data_start;
  for (const auto* item : ordered) {
    const auto& [name, entry] = *item;
    if (entry.offset != expected) {
      fail(file_name + ": tensor " + in_quotes(name) + ": data begins at " +
           std::to_string(entry.offset - data_start) + ", expected " +
           std::to_string(expected - data_start) + " (" +
           (entry.offset < expected ? "overlap" : "hole") + " in the data)");
    }
    expected += entry.bytes;
  }
  if (expected != file_bytes) {
    fail(file_name + ": has " + std::to_string(file_bytes - expected) +
         " bytes after the last tensor, expected none");
  }
}

}  // namespace

SafetensorsEntries parse_safetensors(std::span<const std::byte> file, std::string_view file_name) {
  const std::string name(file_name);
  if (file.size() < kLengthBytes) {
    fail(name + ": has " + std::to_string(file.size()) +
         " bytes, expected at least the 8 of a safetensors header");
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) {
    length |= std::to_integer<std::uint64_t>(file[i]) << (8 * i);
  }
  if (length > kMaxHeaderBytes) {
    fail(name + ": header length is " + std::to_string(length) + ", expected at most " +
         std::to_string(kMaxHeaderBytes) + " (not a safetensors file?)");
  }
  if (length > file.size() - kLengthBytes) {
    fail(name + ": header length is " + std::to_string(length) + ", but only " +
         std::to_string(file.size() - kLengthBytes) + " bytes follow (truncated?)");
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  if (text.empty() || text.front() != '{') {
    fail(name + ": header does not begin with '{', expected a JSON object");
  }
  const json header = parse_json_object(text, name + ": header");

  const std::size_t data_start = kLengthBytes + length;
  SafetensorsEntries entries;
  for (const auto& [tensor, value] : header.items()) {
    if (tensor == "__metadata__") {
      if (!value.is_object()) {
        fail(name + ": __metadata__ is " + shown(value) + ", expected an object");
      }
      continue;
    }
    entries.emplace(tensor, parse_entry(value, name + ": tensor " + in_quotes(tensor), data_start,
                                        file.size() - data_start));
  }
  check_tiling(entries, name, data_start, file.size());
  return entries;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : path_(path), file_(path), entries_(parse_safetensors(file_.bytes(), path.string())) {}

}  // namespace mobius
