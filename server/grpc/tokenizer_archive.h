#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "engine/status.h"

namespace mobius {

/// A ZIP archive of what a router needs of a model's folder to tokenize and to write prompts:
/// tokenizer, configuration, chat template. Not compressed.
struct TokenizerArchive {
  std::string zip;
  std::string sha256;  ///< hexadecimal
};

/// Reads the files. Errors are for clients: they name no path.
StatusOr<TokenizerArchive> make_tokenizer_archive(const std::string& folder);

/// Makes it when it is first asked for, and keeps it. Thread-safe.
class TokenizerArchives {
 public:
  StatusOr<std::shared_ptr<const TokenizerArchive>> get(const std::string& folder);

 private:
  std::mutex mutex_;
  std::shared_ptr<const TokenizerArchive> made_;
};

}  // namespace mobius
