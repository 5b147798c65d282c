#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "engine/request.h"
#include "server/http/answer.h"

namespace mobius {

/// Turns the events of a generation into an answer of /v1/responses: a list of items, messages and
/// function calls, whole or as typed events, each of which has a number. Not thread-safe.
class ResponsesWriter {
 public:
  /// `streamed`: the functions return complete events; else nothing, and `text` has it all.
  ResponsesWriter(AnswerHead head, bool streamed);
  ~ResponsesWriter();
  ResponsesWriter(const ResponsesWriter&) = delete;
  ResponsesWriter& operator=(const ResponsesWriter&) = delete;

  std::string begin();
  std::string progress(std::size_t choice, const PrefillProgress& progress);
  std::string token(std::size_t choice, const TokenDelta& delta);
  /// The end of all; a failure too, where it is streamed.
  std::string finish(std::size_t choice, const Finish& finish);
  bool ended() const;
  /// The whole answer, after `finish`.
  std::string text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mobius
