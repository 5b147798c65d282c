#include "kernels/cpu/attention.h"

#include <algorithm>
#include <bit>
#include <stdexcept>

#include "kernels/cpu/alignment.h"
#include "kernels/cpu/attention_group.h"

namespace mobius {
namespace {

/// Rows of a group. Under MoBA many, so that enough of them choose the same block; under full
/// attention few, so that their state stays in the L2 cache.
constexpr std::int32_t kMobaGroupRows = 2048;
constexpr std::int32_t kFullGroupRows = 192;
/// Groups that every thread should find, so that none waits long for the last one.
constexpr std::int64_t kGroupsPerThread = 4;

struct GroupItem {
  AttentionGroup group;
  std::int64_t cost = 0;  ///< keys times queries, to start with the longest
};

/// A decode step of one sequence has few groups, each with a long context. Where threads would find
/// too few, a group becomes several tasks, each of some of its spans.
struct Split {
  std::int32_t spans = 1;  ///< of the longest context
  std::int32_t spans_per_task = 1;
  std::int32_t tasks_per_group = 1;
};

/// What every task of one call reads.
struct AttentionRun {
  GroupContext context;
  GroupLimits limits;
  std::span<const GroupItem> items;
  std::byte* scratch = nullptr;
  std::size_t scratch_bytes = 0;
  Split split;
  SoftmaxState parts;  ///< [items][spans][gqa]

  const AttentionGroup& group(std::int64_t item) const {
    return items[static_cast<std::size_t>(item)].group;
  }
  AttentionPolicy policy(const AttentionGroup& group) const {
    return group.slice->policy_at(context.layer, context.kv->shape().num_layers);
  }
  GroupScratch scratch_of(int thread) const {
    return carve_group_scratch(scratch + static_cast<std::size_t>(thread) * scratch_bytes,
                               context.kv->shape(), limits);
  }
  SoftmaxState parts_of(std::int64_t item) const {
    const std::ptrdiff_t first = item * split.spans * context.gqa;
    return {parts.m + first, parts.l + first, parts.o + first * context.kv->shape().head_dim};
  }
};

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

GroupLimits limits_of(const KvShape& kv, std::int32_t gqa, std::int64_t rows,
                      std::int64_t context) {
  const std::int64_t max_rows = std::min(rows * gqa, std::int64_t{std::max(kMobaGroupRows, gqa)});
  // One more than complete blocks: the current one.
  return {gqa, static_cast<std::int32_t>(max_rows),
          static_cast<std::int32_t>(context / kv.page_tokens + 1)};
}

/// Groups that a step of these many threads should have at least.
std::int64_t enough_groups(int threads) {
  return kGroupsPerThread * threads;
}

std::int32_t spans_of(const KvShape& kv, std::int64_t context) {
  // A span is a little shorter than kSpanKeys where pages do not divide it.
  const std::int32_t pages = std::max(1, kSpanKeys / kv.page_tokens);
  return static_cast<std::int32_t>((context - 1) / kv.page_tokens / pages + 1);
}

/// Rows of states that split groups may need: those of all heads of the most rows that still make
/// too few groups, in every span.
std::size_t part_rows(const KvShape& kv, std::int32_t gqa, std::int64_t rows, std::int64_t context,
                      int threads) {
  const std::int64_t few = std::min(rows, (enough_groups(threads) - 1) / kv.kv_heads);
  const std::int32_t spans = spans_of(kv, context);
  return spans > 1 && threads > 1 ? static_cast<std::size_t>(few * kv.kv_heads * gqa * spans) : 0;
}

/// Offsets into the workspace: items, states of split groups, then every thread's scratch.
struct Workspace {
  std::size_t m = 0, l = 0, o = 0, scratch = 0, end = 0;
};

Workspace lay_out(const KvShape& kv, const GroupLimits& limits, std::int64_t rows,
                  std::int64_t context, int threads) {
  const std::size_t items = static_cast<std::size_t>(rows) * static_cast<std::size_t>(kv.kv_heads);
  const std::size_t parts = part_rows(kv, limits.gqa, rows, context, threads);
  const std::size_t head_dim = static_cast<std::size_t>(kv.head_dim);
  Workspace layout;
  layout.m = align_up(items * sizeof(GroupItem));
  layout.l = layout.m + align_up(parts * sizeof(float));
  layout.o = layout.l + align_up(parts * sizeof(float));
  layout.scratch = layout.o + align_up(parts * head_dim * sizeof(float));
  layout.end = layout.scratch + static_cast<std::size_t>(threads) * group_scratch_bytes(kv, limits);
  return layout;
}

/// The most queries that one group takes.
std::int32_t queries_per_group(const AttentionPolicy& policy, std::int32_t gqa,
                               std::int64_t wanted) {
  const std::int32_t rows = policy.mode == AttentionMode::moba ? kMobaGroupRows : kFullGroupRows;
  return static_cast<std::int32_t>(std::clamp<std::int64_t>(wanted, 1, std::max(1, rows / gqa)));
}

std::int32_t check(Tensor out, Tensor q, const CpuKvPool& kv, std::int32_t layer,
                   const StepView& step) {
  const KvShape& shape = kv.shape();
  const std::int64_t kv_columns = static_cast<std::int64_t>(shape.kv_heads) * shape.head_dim;
  require(layer >= 0 && layer < shape.num_layers, "layer out of range");
  require(q.dtype == shape.dtype && out.dtype == shape.dtype, "q and out must have the KV type");
  require(q.rows == out.rows && q.cols == out.cols, "q and out differ in shape");
  require(q.cols > 0 && q.cols % kv_columns == 0, "q's columns are no multiple of the KV heads'");
  check_slices(step.slices, shape, q.rows);
  for (const SequenceSlice& slice : step.slices) {
    const std::int64_t lists = shape.num_layers * (q.cols / shape.head_dim);
    const std::int32_t position = slice.first_position + slice.num_rows - 1;
    require(slice.attended.empty() ||
                (slice.policy.mode == AttentionMode::moba &&
                 std::ssize(slice.attended) == lists * attended_blocks(slice.policy, position)),
            "the place for attended blocks does not fit");
  }
  return static_cast<std::int32_t>(q.cols / kv_columns);
}

GroupContext context_of(void* out, Tensor q, const CpuKvPool& kv, std::int32_t layer,
                        std::int32_t gqa, Isa isa) {
  return {&attention_kernels(isa, kv.shape().dtype),
          &kv,
          layer,
          gqa,
          static_cast<const std::byte*>(q.data),
          static_cast<std::byte*>(out)};
}

}  // namespace

std::size_t attention_workspace_bytes(const KvShape& kv, std::int32_t heads,
                                      const StepLimits& limits, int threads) {
  return lay_out(kv, limits_of(kv, heads / kv.kv_heads, limits.max_rows, limits.max_context),
                 limits.max_rows, limits.max_context, threads)
      .end;
}

void attention(Tensor out, Tensor q, const CpuKvPool& kv, std::int32_t layer, const StepView& step,
               std::span<std::byte> workspace, ThreadPool& threads, Isa isa) {
  const KvShape& shape = kv.shape();
  const std::int32_t gqa = check(out, q, kv, layer, step);
  if (q.rows == 0) return;
  std::int64_t context_tokens = 0;
  for (const SequenceSlice& slice : step.slices) {
    context_tokens = std::max<std::int64_t>(context_tokens, slice.first_position + slice.num_rows);
  }
  const GroupLimits limits = limits_of(shape, gqa, q.rows, context_tokens);
  const Workspace layout = lay_out(shape, limits, q.rows, context_tokens, threads.size());
  require(workspace.size() >= layout.end, "attention's workspace is too small for the step");

  const std::int64_t groups = enough_groups(threads.size());
  const std::int64_t wanted = (q.rows * shape.kv_heads + groups - 1) / groups;
  const auto items = std::span(reinterpret_cast<GroupItem*>(workspace.data()),
                               static_cast<std::size_t>(q.rows * shape.kv_heads));
  std::size_t count = 0;
  for (const SequenceSlice& slice : step.slices) {
    const AttentionPolicy policy = slice.policy_at(layer, shape.num_layers);
    const std::int32_t queries = queries_per_group(policy, gqa, wanted);
    for (std::int32_t first = 0; first < slice.num_rows; first += queries) {
      const std::int32_t size = std::min(queries, slice.num_rows - first);
      std::int64_t keys = slice.first_position + first + size;
      if (policy.mode == AttentionMode::moba) {
        keys = std::min(keys, std::int64_t{policy.block} * policy.top_k);
      }
      for (std::int32_t g = 0; g < shape.kv_heads; ++g) {
        items[count++] = {{&slice, g, first, size}, keys * size};
      }
    }
  }
  std::sort(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(count),
            [](const GroupItem& a, const GroupItem& b) { return a.cost > b.cost; });

  const auto tasks = static_cast<std::int64_t>(count);
  AttentionRun run;
  run.context = context_of(out.data, q, kv, layer, gqa, isa);
  run.limits = limits;
  run.items = items.first(count);
  run.scratch = workspace.data() + layout.scratch;
  run.scratch_bytes = group_scratch_bytes(shape, limits);
  run.split.spans = spans_of(shape, context_tokens);
  // With fewer rows than that every group is one query, which is what `parts` has room for.
  const bool few = q.rows * shape.kv_heads < groups;
  if (threads.size() == 1 || !few || run.split.spans == 1) {
    threads.parallel_for(tasks, [&run](std::int64_t task, int thread) {
      const AttentionGroup& group = run.group(task);
      attend_group(run.context, group, run.policy(group), run.scratch_of(thread));
    });
    return;
  }

  const auto wanted_tasks = static_cast<std::int32_t>((groups + tasks - 1) / tasks);
  Split& split = run.split;
  split.spans_per_task = (split.spans + wanted_tasks - 1) / wanted_tasks;
  split.tasks_per_group = (split.spans + split.spans_per_task - 1) / split.spans_per_task;
  run.parts = {reinterpret_cast<float*>(workspace.data() + layout.m),
               reinterpret_cast<float*>(workspace.data() + layout.l),
               reinterpret_cast<float*>(workspace.data() + layout.o)};
  threads.parallel_for(tasks * split.tasks_per_group, [&run](std::int64_t task, int thread) {
    const std::int64_t item = task / run.split.tasks_per_group;
    const AttentionGroup& group = run.group(item);
    const auto first =
        static_cast<std::int32_t>(task % run.split.tasks_per_group) * run.split.spans_per_task;
    const std::int32_t end =
        std::min(first + run.split.spans_per_task, spans_of(group, run.context.kv->shape()));
    if (first >= end) return;
    attend_spans(run.context, group, run.policy(group), run.scratch_of(thread), first, end,
                 run.parts_of(item));
  });
  threads.parallel_for(tasks, [&run](std::int64_t task, int thread) {
    merge_spans(run.context, run.group(task), run.scratch_of(thread), run.parts_of(task));
  });
}

std::vector<std::vector<std::int32_t>> selected_blocks(Tensor q, const CpuKvPool& kv,
                                                       std::int32_t layer,
                                                       const SequenceSlice& slice, Isa isa) {
  const KvShape& shape = kv.shape();
  SequenceSlice alone = slice;
  alone.first_row = 0;
  StepView step;
  step.slices = std::span(&alone, 1);
  const std::int32_t gqa = check(q, q, kv, layer, step);
  const std::int32_t heads = gqa * shape.kv_heads;
  std::vector<std::vector<std::int32_t>> selected(static_cast<std::size_t>(q.rows * heads));
  const AttentionPolicy policy = slice.policy_at(layer, shape.num_layers);
  if (policy.mode == AttentionMode::full) return selected;

  const GroupContext context = context_of(nullptr, q, kv, layer, gqa, isa);
  const GroupLimits limits =
      limits_of(shape, gqa, q.rows, std::int64_t{slice.first_position} + slice.num_rows);
  std::vector<std::byte> memory(group_scratch_bytes(shape, limits) + kAlignment);
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  const GroupScratch scratch =
      carve_group_scratch(memory.data() + (align_up(address) - address), shape, limits);
  const std::int32_t queries = queries_per_group(policy, gqa, q.rows);
  for (std::int32_t g = 0; g < shape.kv_heads; ++g) {
    for (std::int32_t first = 0; first < slice.num_rows; first += queries) {
      const AttentionGroup group{&alone, g, first, std::min(queries, slice.num_rows - first)};
      pack_queries(context, group, scratch);
      const std::int32_t words = choose_blocks(context, group, policy, scratch);
      for (std::int32_t r = 0; r < group.queries * gqa; ++r) {
        const std::int32_t query = first + r / gqa;
        const std::int32_t head = g * gqa + r % gqa;
        const std::int32_t current = (slice.first_position + query) / policy.block;
        std::vector<std::int32_t>& blocks =
            selected[static_cast<std::size_t>(query) * static_cast<std::size_t>(heads) +
                     static_cast<std::size_t>(head)];
        for (std::int32_t b = 0; b <= current; ++b) {
          if (scratch.chosen[static_cast<std::ptrdiff_t>(b) * words + r / 64] >> (r % 64) & 1U) {
            blocks.push_back(b);
          }
        }
      }
    }
  }
  return selected;
}

}  // namespace mobius
