#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace mobius {

/// The regular expression that cuts text into the pieces within which BPE may merge. Immutable:
/// may be shared by any number of threads, each with Pieces of its own.
class SplitPattern {
 public:
  /// `regex` is written for Oniguruma, as in tokenizer.json. Throws std::runtime_error, saying why,
  /// for a construct that PCRE2 would read differently and for one that it cannot compile.
  explicit SplitPattern(std::string_view regex);
  ~SplitPattern();
  SplitPattern(const SplitPattern&) = delete;
  SplitPattern& operator=(const SplitPattern&) = delete;

 private:
  friend class Pieces;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Walks over the pieces of texts: matches and, as pieces of their own, the gaps between them. The
/// pieces of a text, put together, are the text. Not thread-safe.
class Pieces {
 public:
  /// `pattern` must outlive this.
  explicit Pieces(const SplitPattern& pattern);
  ~Pieces();
  Pieces(const Pieces&) = delete;
  Pieces& operator=(const Pieces&) = delete;

  /// Begins a text, which must be valid UTF-8 and outlive the walk.
  void start(std::string_view text);

  /// The next piece, never empty; an empty view at the end. Where a match needs more memory than
  /// allowed, the rest of the text is one piece (Llama 3's pattern never gets there).
  std::string_view next();

 private:
  struct State;
  std::string_view take(std::size_t end);

  const SplitPattern::Impl* pattern_;
  std::unique_ptr<State> state_;
  std::string_view text_;
  std::size_t at_ = 0;           // where the next piece begins
  std::size_t match_begin_ = 0;  // a match that waits behind a gap, if match_end_ > at_
  std::size_t match_end_ = 0;
};

}  // namespace mobius
