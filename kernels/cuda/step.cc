#include "kernels/cuda/step.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernels/cuda/check.h"

namespace mobius {
namespace {

constexpr std::size_t kAlignElements = 64;  // 256 bytes

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(std::string("step: ") + what);
}

std::int32_t pages_of(std::int64_t tokens, std::int32_t page_tokens) {
  return static_cast<std::int32_t>((tokens + page_tokens - 1) / page_tokens);
}

std::int32_t max_pages(const StepLimits& limits, const KvShape& kv) {
  return pages_of(limits.max_context, kv.page_tokens);
}

}  // namespace

StepUploader::Layout StepUploader::lay_out(std::int32_t rows, const StepLimits& limits,
                                           const KvShape& kv) {
  Layout layout;
  layout.rows = rows;
  const auto r = static_cast<std::size_t>(rows);
  const auto s = static_cast<std::size_t>(std::min(limits.max_sequences, rows));
  const auto place = [&layout](std::size_t count) {
    const std::size_t at = layout.end;
    layout.end += (count + kAlignElements - 1) / kAlignElements * kAlignElements;
    return at;
  };
  layout.tokens = place(r);
  layout.positions = place(r);
  layout.row_slice = place(r);
  layout.logit_rows = place(r);
  layout.first_row = place(s);
  layout.num_rows = place(s);
  layout.first_position = place(s);
  layout.policy_block = place(s);
  layout.policy_top_k = place(s);
  layout.full_last_layers = place(s);
  // A segment or tile has at least one row of its own.
  layout.segments = place(4 * r);
  layout.tiles = place(2 * r);
  layout.single_rows = place(s);
  layout.single_spans = place(s + 1);
  const std::size_t hopper_slices =
      static_cast<std::size_t>(kv.num_layers) * s * sizeof(hopper::Slice) / sizeof(std::int32_t);
  layout.hopper_slices = place(hopper_slices);
  layout.hopper_singles = place(hopper_slices);
  layout.told_at = place(s);
  const std::int32_t blocks = multiprocessors();
  layout.decode_block_runs = place(static_cast<std::size_t>(blocks) + 1);
  const auto runs =
      static_cast<std::size_t>(most_decode_runs(static_cast<std::int32_t>(s), kv.kv_heads, blocks));
  layout.decode_runs = place(runs * sizeof(DecodeRun) / sizeof(std::int32_t));
  return layout;
}

std::size_t StepUploader::device_bytes(const StepLimits& limits, const KvShape& kv) {
  const std::size_t pages = static_cast<std::size_t>(limits.max_sequences) *
                            static_cast<std::size_t>(max_pages(limits, kv));
  return (lay_out(limits.max_rows, limits, kv).end + pages) * sizeof(std::int32_t);
}

StepUploader::StepUploader(const StepLimits& limits, const KvShape& kv, std::int32_t heads)
    : limits_(limits),
      kv_(kv),
      tile_queries_(kTileWarps * warp_queries(heads / kv.kv_heads)),
      max_pages_(max_pages(limits, kv)),
      few_(lay_out(std::min(limits.max_sequences, limits.max_rows), limits, kv)),
      many_(lay_out(limits.max_rows, limits, kv)),
      told_(kv, heads) {
  const std::size_t bytes = many_.end * sizeof(std::int32_t);
  const std::size_t page_bytes = static_cast<std::size_t>(limits.max_sequences) *
                                 static_cast<std::size_t>(max_pages_) * sizeof(std::int32_t);
  memory_ = allocate_device(bytes, "the step's description");
  pages_ = allocate_device(page_bytes, "page tables");
  pinned_ = PinnedBuffer(bytes);
  pinned_pages_ = PinnedBuffer(page_bytes);
}

void StepUploader::check(const StepView& step) const {
  const auto rows = static_cast<std::int64_t>(step.tokens.size());
  require(rows <= limits_.max_rows, "more rows than planned");
  require(step.slices.size() <= static_cast<std::size_t>(limits_.max_sequences),
          "more slices than planned");
  require(step.logit_rows.size() <= step.tokens.size(), "more logit rows than rows");
  for (const std::int32_t row : step.logit_rows) {
    require(row >= 0 && row < rows, "a logit row is not in the step");
  }
  // A step of row operations alone may name no sequences.
  if (!step.slices.empty()) check_slices(step.slices, kv_, rows);
  for (const SequenceSlice& slice : step.slices) {
    require(slice.first_position <= limits_.max_context - slice.num_rows,
            "a sequence is longer than planned");
  }
  told_.check(step);
}

void StepUploader::fill(const StepView& step, const Layout& layout, std::int32_t* at) {
  const std::int32_t page_tokens = kv_.page_tokens;
  std::copy(step.tokens.begin(), step.tokens.end(), at + layout.tokens);
  std::copy(step.logit_rows.begin(), step.logit_rows.end(), at + layout.logit_rows);
  host_ = {};
  host_.rows = static_cast<std::int32_t>(step.tokens.size());
  host_.slices = static_cast<std::int32_t>(step.slices.size());
  host_.logit_rows = static_cast<std::int32_t>(step.logit_rows.size());
  host_.decode_blocks = multiprocessors();
  decode_rows_.clear();
  at[layout.single_spans] = 0;
  for (std::int32_t s = 0; s < host_.slices; ++s) {
    const SequenceSlice& slice = step.slices[static_cast<std::size_t>(s)];
    const bool moba = slice.policy.mode == AttentionMode::moba;
    const std::int32_t end = slice.first_position + slice.num_rows;
    at[layout.first_row + s] = slice.first_row;
    at[layout.num_rows + s] = slice.num_rows;
    at[layout.first_position + s] = slice.first_position;
    at[layout.policy_block + s] = moba ? slice.policy.block : 0;
    at[layout.policy_top_k + s] = slice.policy.top_k;
    at[layout.full_last_layers + s] = slice.full_attention_last_layers;
    host_.longest = std::max(host_.longest, end);
    if (slice.num_rows == 1) {
      const std::int32_t full = moba ? slice.full_attention_last_layers : kv_.num_layers;
      host_.single_full_layers = std::max(host_.single_full_layers, std::min(full, kv_.num_layers));
    }
    if (moba && slice.num_rows == 1) {
      host_.single_top_k = std::max(host_.single_top_k, slice.policy.top_k);
    } else if (moba) {
      host_.top_k = std::max(host_.top_k, slice.policy.top_k);
      host_.moba_blocks += (end - 1) / slice.policy.block;
    }
    auto* hopper_slices = reinterpret_cast<hopper::Slice*>(at + layout.hopper_slices);
    auto* hopper_singles = reinterpret_cast<hopper::Slice*>(at + layout.hopper_singles);
    for (std::int32_t layer = 0; layer < kv_.num_layers; ++layer) {
      const AttentionPolicy policy = slice.policy_at(layer, kv_.num_layers);
      const bool sparse = policy.mode == AttentionMode::moba;
      hopper::Slice entry{slice.first_row,           slice.num_rows, slice.first_position, s,
                          sparse ? policy.block : 0, policy.top_k};
      const std::ptrdiff_t index = std::ptrdiff_t{layer} * host_.slices + s;
      const bool single = slice.num_rows == 1;
      entry.num_rows = single ? 0 : slice.num_rows;
      hopper_slices[index] = entry;
      entry.num_rows = single && sparse ? 1 : 0;
      hopper_singles[index] = entry;
    }
    for (std::int32_t i = 0; i < slice.num_rows; ++i) {
      at[layout.positions + slice.first_row + i] = slice.first_position + i;
      at[layout.row_slice + slice.first_row + i] = s;
    }
    for (std::int32_t position = slice.first_position; position < end;) {
      const std::int32_t rows = std::min(page_tokens - position % page_tokens, end - position);
      std::int32_t* segment = at + layout.segments + std::ptrdiff_t{4} * host_.segments++;
      segment[0] = s;
      segment[1] = slice.first_row + position - slice.first_position;
      segment[2] = rows;
      segment[3] = position;
      position += rows;
    }
    if (slice.num_rows == 1) {
      at[layout.single_rows + host_.single++] = slice.first_row;
      host_.single_spans += span_count(end);
      at[layout.single_spans + host_.single] = host_.single_spans;
      const std::int32_t full_from =
          moba ? std::max(0, kv_.num_layers - slice.full_attention_last_layers) : 0;
      if (full_from < kv_.num_layers) {
        decode_rows_.push_back({slice.first_row, s, slice.first_position, full_from});
      }
    } else {
      host_.tile_pages += pages_of(end, page_tokens);
      for (std::int32_t first = 0; first < slice.num_rows; first += tile_queries_) {
        std::int32_t* tile = at + layout.tiles + std::ptrdiff_t{2} * host_.tiles++;
        tile[0] = s;
        tile[1] = first;
      }
    }
  }
}

std::size_t StepUploader::fill_runs(const Layout& layout, std::int32_t* at) {
  const DecodePlan plan =
      plan_decode(decode_rows_, kv_.kv_heads, host_.decode_blocks, decode_unit(kv_.fp8));
  std::copy(plan.block_runs.begin(), plan.block_runs.end(), at + layout.decode_block_runs);
  std::copy(plan.runs.begin(), plan.runs.end(),
            reinterpret_cast<DecodeRun*>(at + layout.decode_runs));
  return layout.decode_runs + plan.runs.size() * sizeof(DecodeRun) / sizeof(std::int32_t);
}

void StepUploader::upload(const StepView& step, const CudaStream& stream) {
  check(step);
  const bool few = step.tokens.size() <= static_cast<std::size_t>(few_.rows);
  const Layout& layout = few ? few_ : many_;
  auto* description = reinterpret_cast<std::int32_t*>(pinned_.data());
  fill(step, layout, description);
  told_.begin(step, {description + layout.told_at, step.slices.size()});
  const std::size_t filled = fill_runs(layout, description);
  auto* base = static_cast<std::int32_t*>(memory_.get());
  MOBIUS_CUDA(cudaMemcpyAsync(base, pinned_.data(), filled * sizeof(std::int32_t),
                              cudaMemcpyHostToDevice, stream.get()));

  const auto used = static_cast<std::size_t>(pages_of(host_.longest, kv_.page_tokens));
  auto* table = reinterpret_cast<std::int32_t*>(pinned_pages_.data());
  for (std::size_t s = 0; s < step.slices.size(); ++s) {
    const std::span<const PageId> pages = step.slices[s].pages;
    std::copy_n(pages.begin(), std::min(pages.size(), used),
                table + s * static_cast<std::size_t>(max_pages_));
  }
  const std::size_t pitch = static_cast<std::size_t>(max_pages_) * sizeof(std::int32_t);
  if (used > 0) {
    MOBIUS_CUDA(cudaMemcpy2DAsync(pages_.get(), pitch, table, pitch, used * sizeof(std::int32_t),
                                  step.slices.size(), cudaMemcpyHostToDevice, stream.get()));
  }
  device_ = {
      .tokens = base + layout.tokens,
      .positions = base + layout.positions,
      .row_slice = base + layout.row_slice,
      .logit_rows = base + layout.logit_rows,
      .first_row = base + layout.first_row,
      .num_rows = base + layout.num_rows,
      .first_position = base + layout.first_position,
      .policy_block = base + layout.policy_block,
      .policy_top_k = base + layout.policy_top_k,
      .full_last_layers = base + layout.full_last_layers,
      .pages = static_cast<const std::int32_t*>(pages_.get()),
      .max_pages = max_pages_,
      .segments = base + layout.segments,
      .tiles = base + layout.tiles,
      .single_rows = base + layout.single_rows,
      .single_spans = base + layout.single_spans,
      .decode_runs = reinterpret_cast<const DecodeRun*>(base + layout.decode_runs),
      .decode_block_runs = base + layout.decode_block_runs,
      .told = told_.lists(),
      .told_at = base + layout.told_at,
      .hopper_slices = reinterpret_cast<const hopper::Slice*>(base + layout.hopper_slices),
      .hopper_singles = reinterpret_cast<const hopper::Slice*>(base + layout.hopper_singles)};
}

}  // namespace mobius
