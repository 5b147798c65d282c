#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

namespace mobius {

/// One request of a trace. Its prompt is known by blocks: equal ids are equal tokens behind equal
/// tokens, so prompts that begin with the same ids begin with the same text.
struct TraceRequest {
  std::int64_t arrival_ms = 0;
  std::int32_t input = 0;            ///< tokens
  std::int32_t output = 0;           ///< tokens
  std::vector<std::int32_t> blocks;  ///< ids; the last block may be longer than the input
};

inline constexpr std::int32_t kTraceBlock = 512;  // tokens

/// Where the published Mooncake trace of conversations is, if it is there: under MOBIUS_TEST_DATA,
/// or beside the checkout.
std::optional<std::filesystem::path> mooncake_trace();

/// The first `count` requests of a trace in Mooncake's format. Throws std::runtime_error on a line
/// that is not.
std::vector<TraceRequest> read_trace(const std::filesystem::path& path, std::size_t count);

/// A trace of the same kind, made from a seed: conversations of several turns, some of them about
/// shared documents, and single questions.
std::vector<TraceRequest> make_trace(std::uint32_t seed, std::size_t count);

/// The first `count` tokens (0 to 255) of a prompt of these blocks, each of `block_tokens`.
std::vector<std::int32_t> trace_prompt(const TraceRequest& request, std::int32_t block_tokens,
                                       std::int32_t count);

/// Prompt tokens of each request that a cache of unlimited size would hold as full pages when the
/// request arrives, if everything before had been computed by then.
std::vector<std::int32_t> ideal_hits(const std::vector<TraceRequest>& trace,
                                     std::int32_t page_tokens);

}  // namespace mobius
