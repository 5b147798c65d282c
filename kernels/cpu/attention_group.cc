#include "kernels/cpu/attention_group.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>

#include "kernels/cpu/alignment.h"

namespace mobius {
namespace {

/// Keys that rows attend before the next rows do: K and V of that many stay in the L2 cache.
constexpr std::int32_t kSegmentKeys = 512;

std::int32_t cells_per_head(const KvShape& kv) {
  return static_cast<std::int32_t>(static_cast<std::size_t>(kv.head_dim) * size_of(kv.dtype) /
                                   sizeof(std::uint32_t));
}

std::int32_t pages_per_segment(const KvShape& kv) {
  return std::max(1, kSegmentKeys / kv.page_tokens);
}

/// Cells of a page's keys of one head, and of its values.
std::ptrdiff_t cells_per_page(const KvShape& kv) {
  return static_cast<std::ptrdiff_t>(kv.page_tokens) * cells_per_head(kv);
}

std::int32_t words_for(std::int32_t rows) {
  return (rows + 63) / 64;
}

std::size_t as_size(std::int64_t value) {
  return static_cast<std::size_t>(value);
}

std::ptrdiff_t offset(std::int32_t row, std::int32_t width) {
  return static_cast<std::ptrdiff_t>(row) * width;
}

/// Hands out arrays from a block of memory, or only counts where there is none.
class Carver {
 public:
  explicit Carver(std::byte* memory) : memory_(memory) {}
  template <class T>
  void take(T*& array, std::size_t count) {
    array = memory_ != nullptr ? reinterpret_cast<T*>(memory_ + used_) : nullptr;
    used_ += align_up(count * sizeof(T));
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* memory_;
  std::size_t used_ = 0;
};

std::size_t carve(GroupScratch& scratch, std::byte* memory, const KvShape& kv,
                  const GroupLimits& limits) {
  const std::size_t steps = as_size(cells_per_head(kv));
  const std::size_t rows = as_size(limits.max_rows);
  const std::size_t blocks = as_size(limits.max_blocks);
  const std::size_t head_dim = as_size(kv.head_dim);
  Carver carver(memory);
  carver.take(scratch.q, rows * steps);
  for (SoftmaxState* state : {&scratch.total, &scratch.span}) {
    carver.take(state->m, rows);
    carver.take(state->l, rows);
    carver.take(state->o, rows * head_dim);
  }
  carver.take(scratch.tile_q, kTileRows * steps);
  carver.take(scratch.scores, std::size_t{kTileRows} * kTileKeys);
  carver.take(scratch.centroids, (blocks + kTileKeys - 1) / kTileKeys * steps * kTileKeys);
  carver.take(scratch.top_scores, kTileRows * blocks);
  carver.take(scratch.top_blocks, kTileRows * blocks);
  carver.take(scratch.chosen, blocks * as_size(words_for(limits.max_rows)));
  carver.take(scratch.rows, rows);
  const auto segment_cells = as_size(pages_per_segment(kv) * 2 * cells_per_page(kv));
  carver.take(scratch.widened, kv.fp8 ? segment_cells : 0);
  return carver.used();
}

/// Lays the centroids of blocks [0, count) out as keys of pages of kTileKeys tokens.
void pack_centroids(const GroupContext& context, const AttentionGroup& group, std::int32_t block,
                    std::int32_t count, const GroupScratch& scratch) {
  const std::int32_t steps = cells_per_head(context.kv->shape());
  alignas(kAlignment) std::uint32_t centroid[256];
  for (std::int32_t b = 0; b < count; ++b) {
    block_centroid(centroid, *context.kv, context.layer, group.kv_head, group.slice->pages, block,
                   b);
    std::uint32_t* column = scratch.centroids +
                            static_cast<std::ptrdiff_t>(b / kTileKeys) * steps * kTileKeys +
                            b % kTileKeys;
    for (std::int32_t s = 0; s < steps; ++s) column[offset(s, kTileKeys)] = centroid[s];
  }
}

void mark(const GroupScratch& scratch, std::int32_t words, std::int32_t block, std::int32_t row) {
  scratch.chosen[offset(block, words) + row / 64] |= std::uint64_t{1} << (row % 64);
}

/// State of the rows that a group is at work on.
struct GroupRun {
  const GroupContext& context;
  const AttentionGroup& group;
  const GroupScratch& scratch;
  std::int32_t rows = 0;
  std::int32_t first_position = 0;
  float scale = 0.0F;
  SoftmaxState parts;  ///< where spans' states go one by one; empty: merged into scratch.total

  std::int32_t position(std::int32_t row) const { return first_position + row / context.gqa; }
};

/// Pages [page, end_page), attended in one go, and the page that comes after them (-1: none).
struct Segment {
  std::int32_t page = 0;
  std::int32_t end_page = 0;
  std::int32_t next_page = -1;
};

/// Where a page of a segment lies as cells.
struct PageCells {
  std::uint32_t* keys = nullptr;
  std::uint32_t* values = nullptr;
};

PageCells cells_of(const GroupRun& run, const Segment& segment, std::int32_t page) {
  const CpuKvPool& kv = *run.context.kv;
  const KvShape& shape = kv.shape();
  if (shape.fp8) {
    const std::ptrdiff_t cells = cells_per_page(shape);
    std::uint32_t* keys = run.scratch.widened + (page - segment.page) * 2 * cells;
    return {keys, keys + cells};
  }
  const PageId id = run.group.slice->pages[as_size(page)];
  return {kv.keys(run.context.layer, id, run.group.kv_head),
          kv.values(run.context.layer, id, run.group.kv_head)};
}

/// Makes cells of the segment's quantised keys and values, as far as the group's last row sees.
void widen_segment(const GroupRun& run, const Segment& segment) {
  const CpuKvPool& kv = *run.context.kv;
  const KvShape& shape = kv.shape();
  const std::int32_t layer = run.context.layer;
  const std::int32_t head = run.group.kv_head;
  const std::int32_t tokens = run.position(run.rows - 1) + 1;
  for (std::int32_t page = segment.page; page < segment.end_page; ++page) {
    const std::int32_t count = std::min(tokens - page * shape.page_tokens, shape.page_tokens);
    if (count <= 0) return;
    const PageId id = run.group.slice->pages[as_size(page)];
    const PageCells to = cells_of(run, segment, page);
    // Scores are computed for 16 keys at a time.
    run.context.kernels->widen_keys(to.keys, kv.key_codes(layer, id, head),
                                    kv.key_scales(layer, id, head), shape.page_tokens,
                                    shape.head_dim, (count + 15) / 16 * 16);
    run.context.kernels->widen_values(to.values, kv.value_codes(layer, id, head),
                                      kv.value_scales(layer, id, head), shape.head_dim, count);
  }
}

/// Attends up to kTileRows rows to the segment. The first rows of a segment fetch its pages ahead,
/// the last ones the page after it.
void attend_rows(const GroupRun& run, const std::int32_t* rows, std::int32_t count,
                 const Segment& segment, bool first_rows, bool last_rows) {
  const GroupContext& context = run.context;
  const KvShape& shape = context.kv->shape();
  const std::int32_t steps = cells_per_head(shape);
  const std::int32_t values_per_cell = shape.head_dim / steps;
  for (std::int32_t r = 0; r < count; ++r) {
    std::memcpy(run.scratch.tile_q + offset(r, steps), run.scratch.q + offset(rows[r], steps),
                as_size(steps) * sizeof(std::uint32_t));
  }
  std::int32_t valid[kTileRows];
  TileTask task;
  task.q = run.scratch.tile_q;
  task.key_stride = shape.page_tokens;
  task.head_dim = shape.head_dim;
  task.rows = count;
  task.valid = valid;
  task.state_row = rows;
  task.state = run.scratch.span;
  task.scale = run.scale;
  task.scores = run.scratch.scores;
  for (std::int32_t page = segment.page; page < segment.end_page; ++page) {
    const PageCells cells = cells_of(run, segment, page);
    for (std::int32_t slot = 0; slot < shape.page_tokens; slot += kTileKeys) {
      const std::int32_t size = std::min(kTileKeys, shape.page_tokens - slot);
      const std::int32_t first_key = page * shape.page_tokens + slot;
      task.max_valid = 0;
      for (std::int32_t r = 0; r < count; ++r) {
        valid[r] = std::clamp(run.position(rows[r]) + 1 - first_key, 0, size);
        task.max_valid = std::max(task.max_valid, valid[r]);
      }
      if (task.max_valid == 0) return;
      task.keys = cells.keys + slot;
      task.values =
          cells.values + static_cast<std::ptrdiff_t>(slot / values_per_cell) * shape.head_dim;
      const bool last_page = page + 1 == segment.end_page;
      const std::int32_t next = last_page ? segment.next_page : page + 1;
      const bool fetch =
          !shape.fp8 && slot == 0 && next >= 0 && (last_page ? last_rows : first_rows);
      if (fetch) {
        const PageId next_id = run.group.slice->pages[as_size(next)];
        task.next_keys = context.kv->keys(context.layer, next_id, run.group.kv_head);
        task.next_values = context.kv->values(context.layer, next_id, run.group.kv_head);
      } else {
        task.next_keys = nullptr;
        task.next_values = nullptr;
      }
      context.kernels->attend(task);
    }
  }
}

void clear(SoftmaxState state, std::int32_t rows, std::int32_t head_dim) {
  std::fill_n(state.m, rows, -std::numeric_limits<float>::infinity());
  std::fill_n(state.l, rows, 0.0F);
  std::fill_n(state.o, offset(rows, head_dim), 0.0F);
}

SoftmaxState row_of(SoftmaxState state, std::int32_t row, std::int32_t head_dim) {
  return {state.m + row, state.l + row, state.o + offset(row, head_dim)};
}

/// Adds the rows' states of a span to their totals.
void merge_rows(const GroupRun& run, SoftmaxState part) {
  const std::int32_t head_dim = run.context.kv->shape().head_dim;
  for (std::int32_t r = 0; r < run.rows; ++r) {
    // Rows that no key of the span concerns keep their bits.
    if (part.m[r] == -std::numeric_limits<float>::infinity()) continue;
    run.context.kernels->merge(row_of(run.scratch.total, r, head_dim), row_of(part, r, head_dim),
                               head_dim, run.scale);
  }
}

void copy(SoftmaxState to, SoftmaxState from, std::int32_t rows, std::int32_t head_dim) {
  std::copy_n(from.m, rows, to.m);
  std::copy_n(from.l, rows, to.l);
  std::copy_n(from.o, offset(rows, head_dim), to.o);
}

void end_span(const GroupRun& run, std::int32_t span) {
  const std::int32_t head_dim = run.context.kv->shape().head_dim;
  if (run.parts.m == nullptr) {
    merge_rows(run, run.scratch.span);
  } else {
    copy(row_of(run.parts, span * run.rows, head_dim), run.scratch.span, run.rows, head_dim);
  }
  clear(run.scratch.span, run.rows, head_dim);
}

/// The first block from `block` on that a row of the group attends, or -1.
std::int32_t next_chosen(const GroupRun& run, std::int32_t words, std::int32_t block,
                         std::int32_t end_block) {
  for (; block < end_block; ++block) {
    const std::uint64_t* chosen = run.scratch.chosen + offset(block, words);
    if (std::any_of(chosen, chosen + words, [](std::uint64_t bits) { return bits != 0; })) {
      return block;
    }
  }
  return -1;
}

/// Rows of the group that attend `block`, ascending, to scratch.rows; returns how many.
std::int32_t list_rows(const GroupRun& run, std::int32_t words, std::int32_t block) {
  const std::uint64_t* chosen = run.scratch.chosen + offset(block, words);
  std::int32_t count = 0;
  for (std::int32_t w = 0; w < words; ++w) {
    for (std::uint64_t bits = chosen[w]; bits != 0; bits &= bits - 1) {
      run.scratch.rows[count++] = w * 64 + std::countr_zero(bits);
    }
  }
  return count;
}

std::int32_t pages_per_span(const KvShape& shape) {
  return std::max(1, kSpanKeys / shape.page_tokens);
}

GroupRun start(const GroupContext& context, const AttentionGroup& group,
               const GroupScratch& scratch, SoftmaxState parts) {
  return {context,
          group,
          scratch,
          group.queries * context.gqa,
          group.slice->first_position + group.first_query,
          static_cast<float>(std::numbers::log2e /
                             std::sqrt(static_cast<double>(context.kv->shape().head_dim))),
          parts};
}

/// Tells which blocks the slice's last row attends, if the group has it and somebody asks.
void tell_blocks(const GroupRun& run, const AttentionPolicy& policy, std::int32_t words) {
  const GroupContext& context = run.context;
  const SequenceSlice& slice = *run.group.slice;
  if (slice.attended.empty() || run.group.first_query + run.group.queries < slice.num_rows) return;
  const std::int32_t position = run.position(run.rows - 1);
  const std::int32_t count = attended_blocks(policy, position);
  const std::int32_t kv_heads = context.kv->shape().kv_heads;
  const std::int32_t first_list = (context.layer * kv_heads + run.group.kv_head) * context.gqa;
  auto next = slice.attended.begin() + offset(first_list, count);
  for (std::int32_t row = run.rows - context.gqa; row < run.rows; ++row) {
    for (std::int32_t block = 0; block <= position / policy.block; ++block) {
      const std::uint64_t bits = run.scratch.chosen[offset(block, words) + row / 64];
      if ((bits >> (row % 64) & 1U) != 0) *next++ = block;
    }
  }
}

/// Attends all rows to their keys in spans [first_span, end_span).
void run_spans(const GroupRun& run, const AttentionPolicy& policy, std::int32_t first_span,
               std::int32_t end_span_index) {
  const KvShape& shape = run.context.kv->shape();
  const GroupScratch& scratch = run.scratch;
  pack_queries(run.context, run.group, scratch);
  clear(scratch.span, run.rows, shape.head_dim);
  const bool moba = policy.mode == AttentionMode::moba;
  const std::int32_t words = moba ? choose_blocks(run.context, run.group, policy, scratch) : 0;
  // Threads that share a group choose alike; the one with its beginning tells.
  if (moba && first_span == 0) tell_blocks(run, policy, words);

  const std::int32_t span_pages = pages_per_span(shape);
  const std::int32_t first_page = first_span * span_pages;
  const std::int32_t end_page =
      std::min(end_span_index * span_pages, run.position(run.rows - 1) / shape.page_tokens + 1);
  const std::int32_t block_pages = moba ? policy.block / shape.page_tokens : end_page;
  const std::int32_t segment_pages = pages_per_segment(shape);
  const std::int32_t end_block = (end_page + block_pages - 1) / block_pages;
  for (std::int32_t r = 0; r < run.rows; ++r) scratch.rows[r] = r;

  std::int32_t span = first_span;
  std::int32_t block = moba ? next_chosen(run, words, first_page / block_pages, end_block) : 0;
  while (block >= 0) {
    const std::int32_t count = moba ? list_rows(run, words, block) : run.rows;
    const std::int32_t next_block = moba ? next_chosen(run, words, block + 1, end_block) : -1;
    const std::int32_t end = std::min(end_page, (block + 1) * block_pages);
    Segment segment;
    segment.page = std::max(first_page, block * block_pages);
    for (; segment.page < end; segment.page = segment.end_page) {
      if (segment.page / span_pages != span) {
        end_span(run, span);
        span = segment.page / span_pages;
      }
      segment.end_page = std::min({end, (span + 1) * span_pages, segment.page + segment_pages});
      segment.next_page = segment.end_page < end ? segment.end_page
                          : next_block >= 0      ? next_block * block_pages
                                                 : -1;
      // Rows in the list ascend by position: those before the segment come first.
      const std::int32_t segment_start = segment.page * shape.page_tokens;
      std::int32_t begin = 0;
      while (begin < count && run.position(scratch.rows[begin]) < segment_start) ++begin;
      if (shape.fp8 && begin < count) widen_segment(run, segment);
      for (std::int32_t r = begin; r < count; r += kTileRows) {
        attend_rows(run, scratch.rows + r, std::min(kTileRows, count - r), segment, r == begin,
                    r + kTileRows >= count);
      }
    }
    block = next_block;
  }
  end_span(run, span);
}

/// Writes the rows' totals to context.out.
void finish_rows(const GroupRun& run) {
  const KvShape& shape = run.context.kv->shape();
  const AttentionGroup& group = run.group;
  const std::int32_t gqa = run.context.gqa;
  const std::size_t head_bytes = as_size(shape.head_dim) * size_of(shape.dtype);
  const std::size_t heads = as_size(shape.kv_heads) * as_size(gqa);
  for (std::int32_t r = 0; r < run.rows; ++r) {
    const std::size_t row = as_size(group.slice->first_row + group.first_query + r / gqa);
    const std::size_t head = as_size(group.kv_head) * as_size(gqa) + as_size(r % gqa);
    run.context.kernels->finish(run.context.out + (row * heads + head) * head_bytes,
                                row_of(run.scratch.total, r, shape.head_dim), shape.head_dim);
  }
}

}  // namespace

std::size_t group_scratch_bytes(const KvShape& kv, const GroupLimits& limits) {
  GroupScratch scratch;
  return carve(scratch, nullptr, kv, limits);
}

GroupScratch carve_group_scratch(std::byte* memory, const KvShape& kv, const GroupLimits& limits) {
  GroupScratch scratch;
  carve(scratch, memory, kv, limits);
  return scratch;
}

void pack_queries(const GroupContext& context, const AttentionGroup& group,
                  const GroupScratch& scratch) {
  const KvShape& shape = context.kv->shape();
  const std::size_t part = as_size(context.gqa) * as_size(shape.head_dim) * size_of(shape.dtype);
  auto* packed = reinterpret_cast<std::byte*>(scratch.q);
  for (std::int32_t i = 0; i < group.queries; ++i) {
    const std::size_t row = as_size(group.slice->first_row + group.first_query + i);
    std::memcpy(packed + as_size(i) * part,
                context.q + (row * as_size(shape.kv_heads) + as_size(group.kv_head)) * part, part);
  }
}

std::int32_t choose_blocks(const GroupContext& context, const AttentionGroup& group,
                           const AttentionPolicy& policy, const GroupScratch& scratch) {
  const std::int32_t steps = cells_per_head(context.kv->shape());
  const std::int32_t rows = group.queries * context.gqa;
  const std::int32_t words = words_for(rows);
  const std::int32_t first_position = group.slice->first_position + group.first_query;
  const std::int32_t last_block = (first_position + group.queries - 1) / policy.block;
  std::fill_n(scratch.chosen, static_cast<std::ptrdiff_t>(last_block + 1) * words, 0);
  const auto current_block = [&](std::int32_t row) {
    return (first_position + row / context.gqa) / policy.block;
  };
  // Rule 7: rows with so few blocks in sight take them all, without scores.
  const bool scored = last_block >= policy.top_k && policy.top_k > 1;
  if (scored) pack_centroids(context, group, policy.block, last_block, scratch);

  for (std::int32_t first = 0; first < rows; first += kTileRows) {
    const std::int32_t count = std::min(kTileRows, rows - first);
    TopList top[kTileRows];
    for (std::int32_t r = 0; r < count; ++r) {
      const std::ptrdiff_t at = offset(r, last_block);
      const std::int32_t candidates = current_block(first + r);
      mark(scratch, words, candidates, first + r);
      if (candidates < policy.top_k) {
        for (std::int32_t b = 0; b < candidates; ++b) mark(scratch, words, b, first + r);
      } else {
        top[r] = {scratch.top_scores + at, scratch.top_blocks + at, 0, policy.top_k - 1};
      }
    }
    const std::int32_t candidates = current_block(first + count - 1);
    if (candidates < policy.top_k || policy.top_k == 1) continue;
    for (std::int32_t block = 0; block < candidates; block += kTileKeys) {
      const std::int32_t panel = std::min(kTileKeys, candidates - block);
      context.kernels->dot(scratch.q + offset(first, steps), count, steps,
                           scratch.centroids + offset(block, steps), kTileKeys, panel,
                           scratch.scores);
      for (std::int32_t r = 0; r < count; ++r) {
        if (top[r].limit == 0) continue;
        const std::int32_t own = std::min(panel, current_block(first + r) - block);
        if (own > 0)
          context.kernels->keep_top(top[r], scratch.scores + offset(r, kTileKeys), own, block);
      }
    }
    for (std::int32_t r = 0; r < count; ++r) {
      for (std::int32_t i = 0; i < top[r].count; ++i) {
        mark(scratch, words, top[r].blocks[i], first + r);
      }
    }
  }
  return words;
}

std::int32_t spans_of(const AttentionGroup& group, const KvShape& shape) {
  const std::int32_t last = group.slice->first_position + group.first_query + group.queries - 1;
  return last / shape.page_tokens / pages_per_span(shape) + 1;
}

void attend_group(const GroupContext& context, const AttentionGroup& group,
                  const AttentionPolicy& policy, const GroupScratch& scratch) {
  const GroupRun run = start(context, group, scratch, {});
  clear(scratch.total, run.rows, context.kv->shape().head_dim);
  run_spans(run, policy, 0, spans_of(group, context.kv->shape()));
  finish_rows(run);
}

void attend_spans(const GroupContext& context, const AttentionGroup& group,
                  const AttentionPolicy& policy, const GroupScratch& scratch,
                  std::int32_t first_span, std::int32_t end_span, SoftmaxState parts) {
  const GroupRun run = start(context, group, scratch, parts);
  // Spans without a chosen block are never come by.
  std::fill_n(parts.m + offset(first_span, run.rows), offset(end_span - first_span, run.rows),
              -std::numeric_limits<float>::infinity());
  run_spans(run, policy, first_span, end_span);
}

void merge_spans(const GroupContext& context, const AttentionGroup& group,
                 const GroupScratch& scratch, SoftmaxState parts) {
  const GroupRun run = start(context, group, scratch, {});
  const std::int32_t head_dim = context.kv->shape().head_dim;
  clear(scratch.total, run.rows, head_dim);
  const std::int32_t spans = spans_of(group, context.kv->shape());
  for (std::int32_t span = 0; span < spans; ++span) {
    merge_rows(run, row_of(parts, span * run.rows, head_dim));
  }
  finish_rows(run);
}

}  // namespace mobius
