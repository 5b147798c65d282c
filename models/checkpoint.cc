#include "models/checkpoint.h"

#include <stdexcept>
#include <utility>

#include "models/json_file.h"

namespace mobius {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr std::uintmax_t kMaxIndexBytes = 64 << 20;

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

/// Tensor name to shard name, as the index has it. Shards lie beside the index: a name with a
/// folder in it could reach any file of the machine.
std::map<std::string, std::string> read_index(const std::filesystem::path& path) {
  const nlohmann::json index = read_json_file(path, kMaxIndexBytes);
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) {
    throw std::runtime_error(path.string() +
                             ": weight_map is missing or no object, expected {tensor: file}");
  }
  std::map<std::string, std::string> shard_of;
  for (const auto& [tensor, file] : map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : std::string();
    if (name.empty() || name == "." || name == ".." ||
        name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos) {
      throw std::runtime_error(path.string() + ": tensor " + in_quotes(tensor) + ": found " +
                               shown(file) + ", expected the name of a file in the same folder");
    }
    shard_of.emplace(tensor, name);
  }
  return shard_of;
}

}  // namespace

Checkpoint::Checkpoint(const std::filesystem::path& folder) {
  if (!std::filesystem::is_directory(folder)) {
    throw std::runtime_error(folder.string() + ": no such folder, expected a checkpoint");
  }
  source_ = folder / kSingleFile;
  if (std::filesystem::exists(source_)) {
    files_.emplace_back(source_);
    for (const auto& [name, entry] : files_.front().entries()) file_of_.emplace(name, 0);
    return;
  }
  source_ = folder / kIndexFile;
  if (!std::filesystem::exists(source_)) {
    throw std::runtime_error(folder.string() + ": has neither " + kSingleFile + " nor " +
                             kIndexFile);
  }
  std::map<std::string, std::size_t> file_index;
  for (const auto& [tensor, shard] : read_index(source_)) {
    const auto [position, is_new] = file_index.emplace(shard, files_.size());
    if (is_new) files_.emplace_back(folder / shard);
    const SafetensorsFile& file = files_[position->second];
    if (file.entries().find(tensor) == file.entries().end()) {
      throw std::runtime_error(file.path().string() + ": tensor " + in_quotes(tensor) +
                               ": missing, expected because " + kIndexFile + " lists it here");
    }
    file_of_.emplace(tensor, position->second);
  }
}

bool Checkpoint::has(std::string_view name) const {
  return file_of_.find(name) != file_of_.end();
}

HostTensor Checkpoint::lookup(std::string_view name, const std::vector<std::int64_t>& shape) const {
  const auto found = file_of_.find(name);
  if (found == file_of_.end()) {
    throw std::runtime_error(source_.string() + ": tensor " + in_quotes(name) +
                             ": missing, expected shape " + shape_text(shape));
  }
  const SafetensorsFile& file = files_[found->second];
  const SafetensorsEntry& entry = file.entries().find(name)->second;
  if (entry.shape != shape) {
    throw std::runtime_error(file.path().string() + ": tensor " + in_quotes(name) + ": shape is " +
                             shape_text(entry.shape) + ", expected " + shape_text(shape));
  }
  return {file.data(entry), entry.dtype, 1, 1};
}

HostTensor Checkpoint::matrix(std::string_view name, std::int64_t rows, std::int64_t cols) const {
  HostTensor tensor = lookup(name, {rows, cols});
  tensor.rows = rows;
  tensor.cols = cols;
  return tensor;
}

HostTensor Checkpoint::vector(std::string_view name, std::int64_t size) const {
  HostTensor tensor = lookup(name, {size});
  tensor.cols = size;
  return tensor;
}

void Checkpoint::prefault() const {
  for (const SafetensorsFile& file : files_) file.file().prefault();
}

void Checkpoint::release() const {
  for (const SafetensorsFile& file : files_) file.file().release();
}

void Checkpoint::check_intact() const {
  for (const SafetensorsFile& file : files_) {
    if (!file.file().lost()) continue;
    throw std::runtime_error(file.path().string() +
                             ": became shorter while it was in use, or cannot be read any more");
  }
}

}  // namespace mobius
