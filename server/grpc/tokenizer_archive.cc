#include "server/grpc/tokenizer_archive.h"

#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <boost/crc.hpp>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "server/log.h"

namespace mobius {
namespace {

/// A folder may hold anything under these names; tokenizers have some 10 MB.
constexpr std::size_t kMostBytes = std::size_t{256} << 20U;

constexpr auto kNames = std::to_array<std::string_view>({
    "tokenizer.json",
    "tokenizer_config.json",
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "chat_template.json",
});
constexpr auto kEndings = std::to_array<std::string_view>({".jinja", ".model", ".tiktoken"});

bool is_wanted(const std::string& name) {
  return std::ranges::count(kNames, name) > 0 ||
         std::ranges::any_of(kEndings, [&](std::string_view end) { return name.ends_with(end); });
}

struct File {
  std::string name;
  std::string bytes;
};

/// Numbers of ZIP are little-endian.
void append(std::string& out, std::uint32_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 0xFFU);
}

/// What a file's local header and its entry in the directory have in common, from the version that
/// is needed on.
void append_header(std::string& out, const File& file) {
  constexpr std::uint32_t kVersion = 20;
  constexpr std::uint32_t kDate =
      (1U << 5U) | 1U;  // 1980-01-01: the bytes depend on the files alone
  boost::crc_32_type crc;
  crc.process_bytes(file.bytes.data(), file.bytes.size());
  append(out, kVersion, 2);
  append(out, 0, 2);  // flags
  append(out, 0, 2);  // stored
  append(out, 0, 2);  // time
  append(out, kDate, 2);
  append(out, crc.checksum(), 4);
  append(out, static_cast<std::uint32_t>(file.bytes.size()), 4);
  append(out, static_cast<std::uint32_t>(file.bytes.size()), 4);
  append(out, static_cast<std::uint32_t>(file.name.size()), 2);
  append(out, 0, 2);  // extra field
}

/// PKWARE's APPNOTE, sections 4.3.7, 4.3.12 and 4.3.16.
std::string zip_of(const std::vector<File>& files) {
  constexpr std::uint32_t kLocal = 0x04034b50;
  constexpr std::uint32_t kEntry = 0x02014b50;
  constexpr std::uint32_t kEnd = 0x06054b50;
  constexpr std::uint32_t kMadeBy = 20;
  std::string zip;
  std::string directory;
  for (const File& file : files) {
    const auto at = static_cast<std::uint32_t>(zip.size());
    append(zip, kLocal, 4);
    append_header(zip, file);
    zip += file.name;
    zip += file.bytes;
    append(directory, kEntry, 4);
    append(directory, kMadeBy, 2);
    append_header(directory, file);
    append(directory, 0, 2);  // comment
    append(directory, 0, 2);  // disk
    append(directory, 0, 2);  // attributes
    append(directory, 0, 4);
    append(directory, at, 4);
    directory += file.name;
  }
  const auto at = static_cast<std::uint32_t>(zip.size());
  zip += directory;
  append(zip, kEnd, 4);
  append(zip, 0, 4);  // disks
  append(zip, static_cast<std::uint32_t>(files.size()), 2);
  append(zip, static_cast<std::uint32_t>(files.size()), 2);
  append(zip, static_cast<std::uint32_t>(directory.size()), 4);
  append(zip, at, 4);
  append(zip, 0, 2);  // comment
  return zip;
}

std::string sha256_of(std::string_view bytes) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest.data());
  std::string text;
  for (const unsigned char byte : digest) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    text += kDigits[byte >> 4U];
    text += kDigits[byte & 15U];
  }
  return text;
}

}  // namespace

StatusOr<TokenizerArchive> make_tokenizer_archive(const std::string& folder) {
  namespace fs = std::filesystem;
  std::vector<File> files;
  std::size_t total = 0;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::string name = entry->path().filename().string();
    std::error_code ignored;
    if (!is_wanted(name) || !entry->is_regular_file(ignored)) continue;
    const std::uintmax_t size = entry->file_size(ignored);
    if (ignored || (total += size) > kMostBytes) {
      return Status(StatusCode::failed_precondition, "the tokenizer's files are too large");
    }
    std::ifstream stream(entry->path(), std::ios::binary);
    File file{std::move(name), std::string(size, '\0')};
    if (!stream.read(file.bytes.data(), static_cast<std::streamsize>(size))) {
      return Status(StatusCode::internal, "the tokenizer's files cannot be read");
    }
    files.push_back(std::move(file));
  }
  if (error || files.empty()) {
    return Status(StatusCode::not_found, "the model's folder has no tokenizer");
  }
  std::ranges::sort(files, {}, &File::name);
  TokenizerArchive archive;
  archive.zip = zip_of(files);
  archive.sha256 = sha256_of(archive.zip);
  return archive;
}

StatusOr<std::shared_ptr<const TokenizerArchive>> TokenizerArchives::get(
    const std::string& folder) try {
  const std::lock_guard lock(mutex_);
  if (made_ == nullptr) {
    StatusOr<TokenizerArchive> archive = make_tokenizer_archive(folder);
    if (!archive.ok()) return archive.status();
    made_ = std::make_shared<const TokenizerArchive>(std::move(archive).value());
  }
  return made_;
} catch (const std::exception& error) {
  log_event(LogLevel::error, "request_failed", {{"error", error.what()}});
  return Status(StatusCode::internal, "the tokenizer's files cannot be read");
}

}  // namespace mobius
