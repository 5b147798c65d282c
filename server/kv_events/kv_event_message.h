#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "engine/cache_events.h"

namespace mobius {

/// A batch of changes as vLLM publishes it (vllm.distributed.kv_events.KVEventBatch), in
/// MessagePack:
///
///   [seconds since 1970, [event ...], data parallel rank: 0]
///   ["BlockStored", [hash], parent's hash or nil, [token ...], tokens of a block, lora: nil,
///   "GPU"]
///   ["BlockRemoved", [hash], "GPU"]
///   ["AllBlocksCleared"]
///
/// A block is one of our pages. The medium says "GPU" whatever the device is: routers know no other
/// word for "ready to be used".
std::string kv_event_message(std::span<const CacheEvent> events, std::int32_t page_tokens,
                             double seconds);

/// A batch that says that nothing is cached: the first of a server that has just started.
std::string kv_cleared_message(double seconds);

/// 8 bytes, most significant first: how batches are numbered on the wire.
std::string kv_event_number(std::int64_t number);

/// The number in a message; -1 if it is not 8 bytes or negative.
std::int64_t parse_kv_event_number(std::string_view bytes);

}  // namespace mobius
