#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kv_cache.h"
#include "kernels/cpu/thread_pool.h"

namespace mobius {

/// Scratch memory that `attention` needs for any step within `limits` on this many threads.
std::size_t attention_workspace_bytes(const KvShape& kv, std::int32_t heads,
                                      const StepLimits& limits, int threads);

/// Backend::attention. q and out are [R, Q * D] of the KV type and may be the same memory; Q must
/// be a multiple of the pool's KV heads. `workspace` is aligned to 64 bytes and not kept.
///
/// A row's result depends on its own query, the cache and its policy alone: never on other rows,
/// the cut of the prompt or the number of threads. It may differ in its last bits between
/// instruction sets. Throws std::invalid_argument before anything is written; allocates nothing.
void attention(Tensor out, Tensor q, const CpuKvPool& kv, std::int32_t layer, const StepView& step,
               std::span<std::byte> workspace, ThreadPool& threads, Isa isa);

/// The blocks that `attention` chooses, ascending, for each (row, head) of one slice: element
/// [row_in_slice * heads + head]. For tests and tools: allocates. Empty lists under full attention.
std::vector<std::vector<std::int32_t>> selected_blocks(Tensor q, const CpuKvPool& kv,
                                                       std::int32_t layer,
                                                       const SequenceSlice& slice, Isa isa);

}  // namespace mobius
