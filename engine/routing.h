#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/status.h"
#include "engine/tokenizer/tokenizer.h"
#include "models/runner.h"

namespace mobius {

/// The most numbers that Routing::counts has: where heads and blocks would be more, blocks share a
/// column. The largest one's JSON is about a megabyte.
inline constexpr std::size_t kMaxRoutingCounts = std::size_t{1} << 18U;
/// The largest top_k whose choices are counted.
inline constexpr std::int32_t kMaxRoutingTopK = 256;
/// Blocks that Routing lists with their text, and the most bytes of each.
inline constexpr std::size_t kRoutingTop = 32;
inline constexpr std::size_t kRoutingTextBytes = 4096;

/// A block of the context, and how often the rows that drew an answer's tokens attended it.
struct RoutedBlock {
  std::int32_t block = 0;
  std::int32_t first_token = 0;  ///< position in the context; `block` times the block size
  std::int32_t tokens = 0;       ///< those that there are, by the end of the answer
  std::int64_t attended = 0;     ///< over all rows, sparse layers and query heads
  /// Of these, by rows that lie in the block: they attend it whatever it says (moba.md, rule 5).
  std::int64_t own = 0;
  std::string text;  ///< its first kRoutingTextBytes at most; valid UTF-8, special tokens by name
};

/// Where a model looked for an answer: the blocks that MoBA selected for the rows which drew its
/// tokens. The first of these is the prompt's last row, under the prefill policy; the others are
/// generated tokens, under the decode policy. Rows count whose policy is MoBA in blocks of one
/// size: the decode policy's, or the prefill policy's where decode attends everything.
struct Routing {
  std::int32_t tokens = 0;           ///< of the answer that are counted
  std::int32_t block = 0;            ///< tokens; 0 where nothing was selective
  std::int32_t blocks = 0;           ///< that the last row that counts had in sight
  std::int32_t first_own_block = 0;  ///< the one of the first row that counts
  std::int32_t layers = 0;
  std::int32_t full_layers = 0;  ///< the last ones, of which nothing is counted
  std::int32_t heads = 0;        ///< query heads: each chooses for itself
  std::int32_t column_blocks = 1;
  std::int32_t columns = 0;  ///< ceil(blocks / column_blocks)
  /// [layers - full_layers][heads][columns]: how often the column's blocks were attended, own ones
  /// included.
  std::vector<std::uint32_t> counts;
  /// Those attended most often from other blocks first; equal ones in order.
  std::vector<RoutedBlock> top;
};

/// OK, or why the routing of such a request cannot be told.
Status validate_routing(const GenerationRequest& request, const RunnerInfo& model);

/// Counts one request's routing, step by step. Memory: kMaxRoutingCounts numbers, two numbers a
/// block, and the choices of one row. Not thread-safe.
class RoutingCounter {
 public:
  RoutingCounter(const AttentionSettings& attention, const RunnerInfo& model);

  /// Before a step whose row at `position` draws a token: SequenceSlice::attended for its slice,
  /// which is empty where the row does not count. Valid until the next call.
  std::span<std::int32_t> ask(const AttentionPolicy& policy, std::int32_t position);
  /// After that step: counts what the backend wrote there.
  void count();

  /// `tokens` are the prompt's and the answer's.
  Routing result(std::span<const std::int32_t> tokens, const Tokenizer& tokenizer) const;

 private:
  void add(std::size_t list, std::int32_t block);
  void widen_columns();

  RunnerInfo model_;
  std::int32_t block_ = 0;
  std::int32_t full_layers_ = 0;
  std::size_t lists_ = 0;  // sparse layers times heads
  std::size_t max_columns_ = 0;
  std::int32_t tokens_ = 0;
  std::int32_t first_own_block_ = 0;
  std::int32_t last_own_block_ = 0;
  std::int32_t column_blocks_ = 1;
  std::vector<std::int32_t> asked_;                 // of the row in work: [layers][heads][n]
  std::size_t list_size_ = 0;                       // n
  std::vector<std::vector<std::uint32_t>> counts_;  // [lists], as many columns as were needed
  std::vector<std::int64_t> attended_;              // [blocks]
  std::vector<std::int64_t> own_;                   // [blocks]
};

}  // namespace mobius
