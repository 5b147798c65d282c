#include "models/generate/write_checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <mutex>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "models/generate/checkpoint_spec.h"
#include "models/generate/random_values.h"
#include "models/generate/tokenizer_json.h"

namespace mobius {
namespace {

using nlohmann::ordered_json;

constexpr std::int64_t kChunkValues = 1 << 20;

/// A file that gets its name when it is complete.
class OutputFile {
 public:
  explicit OutputFile(std::filesystem::path path)
      : path_(std::move(path)), partial_(path_.string() + ".partial") {
    descriptor_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (descriptor_ < 0) fail("create", errno);
  }
  ~OutputFile() {
    ::close(descriptor_);
    if (!committed_) ::unlink(partial_.c_str());
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  /// Takes the room on disk, so that a full disk shows before hours of writing.
  void reserve(std::size_t bytes) {
    const int error = ::posix_fallocate(descriptor_, 0, static_cast<off_t>(bytes));
    if (error != 0) fail("reserve " + std::to_string(bytes) + " bytes for", error);
  }

  /// May be called from several threads.
  void write_at(std::size_t offset, std::span<const std::byte> data) {
    while (!data.empty()) {
      const ssize_t written =
          ::pwrite(descriptor_, data.data(), data.size(), static_cast<off_t>(offset));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) fail("write", errno);
      data = data.subspan(static_cast<std::size_t>(written));
      offset += static_cast<std::size_t>(written);
    }
  }

  void commit() {
    if (::rename(partial_.c_str(), path_.c_str()) != 0) fail("rename", errno);
    committed_ = true;
  }

 private:
  [[noreturn]] void fail(const std::string& action, int error) const {
    throw std::runtime_error(partial_ + ": cannot " + action +
                             " the file: " + std::generic_category().message(error));
  }

  std::filesystem::path path_;
  std::string partial_;
  int descriptor_ = -1;
  bool committed_ = false;
};

void write_text(const std::filesystem::path& path, const std::string& text) {
  OutputFile file(path);
  file.write_at(0, std::as_bytes(std::span(text)));
  file.commit();
}

struct Chunk {
  const GeneratedTensor* tensor = nullptr;
  std::uint64_t key = 0;
  std::int64_t first = 0;
  std::int64_t count = 0;
  std::size_t file_offset = 0;
};

std::vector<Chunk> cut_into_chunks(const ShardPlan& shard, std::uint64_t seed, DType dtype,
                                   std::size_t& offset) {
  std::vector<Chunk> chunks;
  for (const GeneratedTensor& tensor : shard.tensors) {
    const std::uint64_t key = tensor_key(seed, tensor.name);
    for (std::int64_t first = 0; first < tensor.count(); first += kChunkValues) {
      const std::int64_t count = std::min(kChunkValues, tensor.count() - first);
      chunks.push_back({&tensor, key, first, count, offset});
      offset += static_cast<std::size_t>(count) * size_of(dtype);
    }
  }
  return chunks;
}

/// Small vocabularies answer in printable text and do not stop by themselves: the head's other rows
/// are zero and never win.
void silence_unwanted_rows(const LlamaConfig& config, const Chunk& chunk, DType dtype,
                           std::span<std::byte> values) {
  constexpr std::int32_t kSmallVocabulary = 1024;
  if (config.vocab_size >= kSmallVocabulary || chunk.tensor->name != "lm_head.weight") return;
  const std::int64_t end = chunk.first + chunk.count;
  for (std::int64_t position = chunk.first; position < end;) {
    const std::int64_t row = position / config.hidden_size;
    const std::int64_t row_end = std::min((row + 1) * config.hidden_size, end);
    if (!is_printable(static_cast<std::int32_t>(row))) {
      const auto part =
          values.subspan(static_cast<std::size_t>(position - chunk.first) * size_of(dtype),
                         static_cast<std::size_t>(row_end - position) * size_of(dtype));
      std::fill(part.begin(), part.end(), std::byte{0});
    }
    position = row_end;
  }
}

/// Runs `work` on several threads and rethrows the first exception.
template <typename Work>
void run_threads(std::size_t threads, const Work& work) {
  std::exception_ptr failure;
  std::mutex mutex;
  const auto guarded = [&] {
    try {
      work();
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  std::vector<std::thread> pool;
  for (std::size_t i = 1; i < threads; ++i) pool.emplace_back(guarded);
  guarded();
  for (std::thread& thread : pool) thread.join();
  if (failure) std::rethrow_exception(failure);
}

void write_shard(const LlamaConfig& config, const ShardPlan& shard,
                 const CheckpointOptions& options, const std::filesystem::path& folder) {
  const std::string header = safetensors_header(shard, options.dtype);
  std::size_t file_bytes = header.size();
  const std::vector<Chunk> chunks = cut_into_chunks(shard, options.seed, options.dtype, file_bytes);
  OutputFile file(folder / shard.file_name);
  file.reserve(file_bytes);
  file.write_at(0, std::as_bytes(std::span(header)));

  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    std::vector<std::byte> buffer(static_cast<std::size_t>(kChunkValues) * size_of(options.dtype));
    for (std::size_t i = next++; i < chunks.size(); i = next++) {
      const Chunk& chunk = chunks[i];
      const auto values =
          std::span(buffer).first(static_cast<std::size_t>(chunk.count) * size_of(options.dtype));
      fill_values(values, options.dtype, chunk.key, chunk.first, chunk.tensor->values);
      silence_unwanted_rows(config, chunk, options.dtype, values);
      file.write_at(chunk.file_offset, values);
    }
  };
  const std::size_t cores = std::max(1U, std::thread::hardware_concurrency());
  const std::size_t threads =
      options.threads > 0 ? static_cast<std::size_t>(options.threads) : cores;
  run_threads(std::min(threads, std::max<std::size_t>(chunks.size(), 1)), work);
  file.commit();
}

std::string index_json(const std::vector<ShardPlan>& shards, DType dtype) {
  std::int64_t total = 0;
  nlohmann::json weight_map;  // sorted by name
  for (const ShardPlan& shard : shards) {
    for (const GeneratedTensor& tensor : shard.tensors) {
      total += tensor.count() * static_cast<std::int64_t>(size_of(dtype));
      weight_map[tensor.name] = shard.file_name;
    }
  }
  return nlohmann::json{{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}}.dump(2) +
         "\n";
}

std::string config_json(const LlamaConfig& config, DType dtype) {
  ordered_json scaling = nullptr;
  if (config.rope_scaling) {
    scaling = {
        {"factor", config.rope_scaling->factor},
        {"low_freq_factor", config.rope_scaling->low_freq_factor},
        {"high_freq_factor", config.rope_scaling->high_freq_factor},
        {"original_max_position_embeddings", config.rope_scaling->original_max_position_embeddings},
        {"rope_type", "llama3"}};
  }
  const char* dtype_name = dtype == DType::bf16  ? "bfloat16"
                           : dtype == DType::f16 ? "float16"
                                                 : "float32";
  // Six digits give back what was meant (1e-05), where the float's exact value would be printed.
  const auto decimal = [](float value) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.6g", static_cast<double>(value));
    return std::stod(text.data());
  };
  const ordered_json document = {{"architectures", {"LlamaForCausalLM"}},
                                 {"attention_bias", false},
                                 {"bos_token_id", config.bos_token},
                                 {"eos_token_id", config.eos_tokens},
                                 {"head_dim", config.head_dim},
                                 {"hidden_act", "silu"},
                                 {"hidden_size", config.hidden_size},
                                 {"intermediate_size", config.intermediate_size},
                                 {"max_position_embeddings", config.max_position_embeddings},
                                 {"mlp_bias", false},
                                 {"model_type", "llama"},
                                 {"num_attention_heads", config.num_heads},
                                 {"num_hidden_layers", config.num_layers},
                                 {"num_key_value_heads", config.num_kv_heads},
                                 {"rms_norm_eps", decimal(config.rms_norm_eps)},
                                 {"rope_scaling", scaling},
                                 {"rope_theta", decimal(config.rope_theta)},
                                 {"tie_word_embeddings", config.tie_word_embeddings},
                                 {"torch_dtype", dtype_name},
                                 {"vocab_size", config.vocab_size}};
  return document.dump(2) + "\n";
}

std::string generation_config_json(const LlamaConfig& config) {
  return ordered_json{{"bos_token_id", config.bos_token}, {"eos_token_id", config.eos_tokens}}.dump(
             2) +
         "\n";
}

}  // namespace

void write_checkpoint(const LlamaConfig& config, const CheckpointOptions& options,
                      const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    throw std::runtime_error(folder.string() + ": cannot create the folder: " + error.message());
  }
  // Whatever lay here before is no checkpoint from now on.
  std::filesystem::remove(folder / "config.json", error);
  std::filesystem::remove(folder / "model.safetensors", error);
  std::filesystem::remove(folder / "model.safetensors.index.json", error);

  const std::vector<ShardPlan> shards = plan_shards(config, options.dtype, options.shards);
  for (const ShardPlan& shard : shards) write_shard(config, shard, options, folder);
  if (shards.size() > 1) {
    write_text(folder / "model.safetensors.index.json", index_json(shards, options.dtype));
  }
  write_text(folder / "tokenizer.json", tokenizer_json(config.vocab_size));
  write_text(folder / "generation_config.json", generation_config_json(config));
  write_text(folder / "config.json", config_json(config, options.dtype));
}

}  // namespace mobius
