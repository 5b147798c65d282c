#include "kernels/cuda/decode_runs.h"

#include <algorithm>
#include <cstddef>

namespace mobius {
namespace {

/// Rows whose parts have the same number of units, and that number.
struct Class {
  std::size_t first = 0;  ///< row, in the order of length
  std::size_t end = 0;
  std::int64_t units = 0;
  std::int64_t parts = 0;  ///< of all KV heads
};

/// Parts of `units` that a block still takes. Each time that it takes as many as fit, what is left
/// of its room halves at least; with less than a sixteenth it is full. So at most four times a run
/// ends because its block is full, which is what most_decode_runs counts on.
std::int64_t room_for(std::int64_t level, std::int64_t load, std::int64_t units) {
  const std::int64_t rest = level - load;
  return rest * 16 < level ? 0 : rest / units;
}

bool fits(std::span<const Class> classes, std::int64_t level, std::span<std::int64_t> loads) {
  std::fill(loads.begin(), loads.end(), 0);
  for (const Class& c : classes) {
    std::int64_t left = c.parts;
    for (std::int64_t& load : loads) {
      const std::int64_t taken = std::min(left, room_for(level, load, c.units));
      load += taken * c.units;
      left -= taken;
      if (left == 0) break;
    }
    if (left > 0) return false;
  }
  return true;
}

/// The least level found at which all fits.
std::int64_t find_level(std::span<const Class> classes, std::span<std::int64_t> loads) {
  std::int64_t all = 0;
  for (const Class& c : classes) all += c.parts * c.units;
  const auto blocks = static_cast<std::int64_t>(loads.size());
  std::int64_t level = (all + blocks - 1) / blocks;
  if (!classes.empty()) level = std::max(level, classes.front().units);
  while (!fits(classes, level, loads)) level += level / 64 + 1;
  return level;
}

}  // namespace

DecodePlan plan_decode(std::span<const DecodeRow> rows, std::int32_t kv_heads, std::int32_t blocks,
                       std::int32_t unit) {
  const auto units_of = [&](const DecodeRow& row) {
    return decode_part_keys(row.position + 1, kv_heads, unit) / unit;
  };
  std::vector<DecodeRow> ordered(rows.begin(), rows.end());
  std::stable_sort(ordered.begin(), ordered.end(), [&](const DecodeRow& a, const DecodeRow& b) {
    return units_of(a) > units_of(b);
  });
  std::vector<Class> classes;
  for (std::size_t i = 0; i < ordered.size(); ++i) {
    const std::int64_t units = units_of(ordered[i]);
    if (classes.empty() || classes.back().units != units) classes.push_back({i, i, units, 0});
    classes.back().end = i + 1;
    classes.back().parts +=
        std::int64_t{kv_heads} * decode_parts(ordered[i].position + 1, kv_heads, unit);
  }
  std::vector<std::int64_t> loads(static_cast<std::size_t>(blocks));
  const std::int64_t level = find_level(classes, loads);

  std::fill(loads.begin(), loads.end(), 0);
  std::vector<DecodeRun> found;
  std::vector<std::size_t> owners;  // a block for each
  for (const Class& c : classes) {
    std::size_t block = 0;
    std::int64_t room = room_for(level, loads[block], c.units);
    for (std::size_t i = c.first; i < c.end; ++i) {
      const DecodeRow& row = ordered[i];
      const std::int32_t count = decode_parts(row.position + 1, kv_heads, unit);
      for (std::int32_t kv_head = 0; kv_head < kv_heads; ++kv_head) {
        const std::size_t first_run = found.size();
        for (std::int32_t first = 0; first < count;) {
          while (room == 0) room = room_for(level, loads[++block], c.units);
          const auto taken = static_cast<std::int32_t>(std::min<std::int64_t>(room, count - first));
          loads[block] += taken * c.units;
          room -= taken;
          found.push_back({.row = row.row,
                           .slice = row.slice,
                           .position = row.position,
                           .full_from = row.full_from,
                           .kv_head = kv_head,
                           .part_keys = static_cast<std::int32_t>(c.units) * unit,
                           .first = static_cast<std::uint16_t>(first),
                           .end = static_cast<std::uint16_t>(first + taken)});
          owners.push_back(block);
          first += taken;
        }
        for (std::size_t run = first_run; run < found.size(); ++run) {
          found[run].prefix = found[first_run].end;
          found[run].runs = static_cast<std::uint16_t>(found.size() - first_run);
        }
      }
    }
  }

  DecodePlan plan;
  plan.block_runs.assign(static_cast<std::size_t>(blocks) + 1, 0);
  for (const std::size_t owner : owners) ++plan.block_runs[owner + 1];
  for (std::size_t b = 1; b < plan.block_runs.size(); ++b) {
    plan.block_runs[b] += plan.block_runs[b - 1];
  }
  std::vector<std::int32_t> next(plan.block_runs.begin(), plan.block_runs.end() - 1);
  plan.runs.resize(found.size());
  for (std::size_t run = 0; run < found.size(); ++run) {
    plan.runs[static_cast<std::size_t>(next[owners[run]]++)] = found[run];
  }
  return plan;
}

}  // namespace mobius
