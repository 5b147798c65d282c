#include "engine/tokenizer/tokenizer.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <unordered_map>

#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/split_pattern.h"
#include "engine/tokenizer/utf8.h"
#include "engine/tokenizer/vocabulary.h"

namespace mobius {
namespace {

/// Finds a token by its bytes: open addressing over ids, at most half full.
class TokenIndex {
 public:
  void build(const std::vector<std::string_view>& tokens, const std::vector<bool>& leave_out) {
    const std::size_t size = std::bit_ceil(std::max<std::size_t>(16, tokens.size() * 2));
    slots_.assign(size, {});
    mask_ = size - 1;
    for (std::size_t id = 0; id < tokens.size(); ++id) {
      if (leave_out[id]) continue;
      longest_ = std::max(longest_, tokens[id].size());
      const std::uint64_t hash = hash_of(tokens[id]);
      std::size_t at = hash & mask_;
      while (slots_[at].id >= 0) at = (at + 1) & mask_;
      slots_[at] = {static_cast<std::uint32_t>(hash >> 32), static_cast<std::int32_t>(id)};
    }
  }

  /// -1 if no token has these bytes.
  std::int32_t find(std::string_view bytes, const std::vector<std::string_view>& tokens) const {
    if (bytes.size() > longest_) return -1;
    const std::uint64_t hash = hash_of(bytes);
    const auto tag = static_cast<std::uint32_t>(hash >> 32);
    for (std::size_t at = hash & mask_;; at = (at + 1) & mask_) {
      const Slot& slot = slots_[at];
      if (slot.id < 0 || (slot.tag == tag && tokens[slot.id] == bytes)) return slot.id;
    }
  }

 private:
  struct Slot {
    std::uint32_t tag = 0;
    std::int32_t id = -1;
  };

  static std::uint64_t hash_of(std::string_view bytes) {
    constexpr std::uint64_t kOdd = 0x9E3779B97F4A7C15u;
    std::uint64_t hash = bytes.size() * kOdd;
    while (!bytes.empty()) {
      std::uint64_t word = 0;
      const std::size_t taken = std::min(bytes.size(), sizeof(word));
      std::memcpy(&word, bytes.data(), taken);
      hash = (hash ^ word) * kOdd;
      hash ^= hash >> 29;
      bytes.remove_prefix(taken);
    }
    return hash ^ (hash >> 32);
  }

  std::vector<Slot> slots_;
  std::size_t mask_ = 0;
  std::size_t longest_ = 0;
};

}  // namespace

struct Tokenizer::Impl {
  std::string arena;                     // all tokens' bytes, one after the other
  std::vector<std::string_view> tokens;  // by id, into the arena
  std::vector<bool> special;             // by id
  std::unordered_map<std::string_view, std::int32_t> added;
  std::size_t longest = 1;  // bytes of the longest token of text
  bool whole_pieces;
  TokenIndex index;
  SplitPattern split;
  Bpe bpe;

  explicit Impl(const Vocabulary& vocabulary)
      : special(vocabulary.special),
        whole_pieces(vocabulary.whole_pieces),
        split(vocabulary.split_regex),
        bpe(vocabulary.byte_tokens, vocabulary.merges) {
    std::size_t size = 0;
    for (const std::string& token : vocabulary.tokens) size += token.size();
    arena.reserve(size);  // the views below need an arena that stays where it is
    for (const std::string& token : vocabulary.tokens) {
      const std::size_t begin = arena.size();
      arena += token;
      tokens.push_back(std::string_view(arena).substr(begin));
      // Text never becomes a special token.
      if (!special[tokens.size() - 1]) longest = std::max(longest, token.size());
    }
    std::vector<bool> is_added(tokens.size());
    for (const std::int32_t id : vocabulary.added) {
      is_added[id] = true;
      added.emplace(tokens[id], id);
    }
    index.build(tokens, is_added);
  }

  void encode_piece(std::string_view piece, Bpe::Workspace& workspace,
                    std::vector<std::int32_t>& out) const {
    if (whole_pieces) {
      const std::int32_t token = index.find(piece, tokens);
      if (token >= 0) {
        out.push_back(token);
        return;
      }
    }
    bpe.encode(piece, workspace, out);
  }
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::load(const std::filesystem::path& folder) {
  std::filesystem::path file = folder / "tokenizer.json";
  const bool is_json = std::filesystem::exists(file);
  if (!is_json) file = folder / "tokenizer.model";
  if (!std::filesystem::exists(file)) {
    throw std::runtime_error(folder.string() + ": has neither tokenizer.json nor tokenizer.model");
  }
  try {
    const Vocabulary vocabulary = is_json ? read_tokenizer_json(file) : read_tiktoken_model(file);
    return std::shared_ptr<const Tokenizer>(new Tokenizer(std::make_unique<Impl>(vocabulary)));
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(file.string() + ": " + error.what());
  }
}

std::size_t Tokenizer::encode(std::string_view text, std::vector<std::int32_t>& out,
                              std::size_t most) const {
  const auto at_least = [&] {
    return out.size() + (text.size() + impl_->longest - 1) / impl_->longest;
  };
  if (text.empty() || at_least() > most) return at_least();
  Pieces pieces(impl_->split);
  Bpe::Workspace workspace;
  while (!text.empty()) {
    const std::size_t valid = utf8_valid_prefix(text);
    pieces.start(text.substr(0, valid));
    while (true) {
      const std::string_view piece = pieces.next();
      if (piece.empty()) break;
      impl_->encode_piece(piece, workspace, out);
      if (out.size() > most) return out.size();
    }
    text.remove_prefix(valid);

    std::size_t broken = 0;
    while (broken < text.size()) {
      const Utf8Step step = utf8_step(text.substr(broken));
      if (step.kind == Utf8Step::Kind::valid) break;
      broken += step.length;
    }
    if (broken > 0) impl_->bpe.encode(text.substr(0, broken), workspace, out);
    text.remove_prefix(broken);
    if (at_least() > most) return at_least();
  }
  return out.size();
}

std::optional<std::int32_t> Tokenizer::special(std::string_view name) const {
  const auto found = impl_->added.find(name);
  if (found == impl_->added.end() || !impl_->special[found->second]) return std::nullopt;
  return found->second;
}

bool Tokenizer::is_special(std::int32_t token) const {
  return token >= 0 && token < vocab_size() && impl_->special[token];
}

std::string_view Tokenizer::bytes(std::int32_t token) const {
  return token >= 0 && token < vocab_size() ? impl_->tokens[token] : std::string_view();
}

std::string Tokenizer::decode(std::span<const std::int32_t> tokens, bool with_special) const {
  std::string out;
  for (const std::int32_t token : tokens) {
    if (with_special || !is_special(token)) out += bytes(token);
  }
  return out;
}

std::int32_t Tokenizer::vocab_size() const {
  return static_cast<std::int32_t>(impl_->tokens.size());
}

}  // namespace mobius
