#include "engine/routing.h"

#include <algorithm>
#include <numeric>

#include "engine/tokenizer/utf8.h"

namespace mobius {
namespace {

bool is_moba(const AttentionPolicy& policy) {
  return policy.mode == AttentionMode::moba;
}

/// The size of blocks that rows are counted in; 0: none are.
std::int32_t counted_block(const AttentionSettings& attention) {
  for (const AttentionPolicy* policy : {&attention.decode, &attention.prefill}) {
    if (is_moba(*policy)) return policy->block;
  }
  return 0;
}

std::string text_of(std::span<const std::int32_t> tokens, const Tokenizer& tokenizer) {
  std::string bytes;
  for (const std::int32_t token : tokens) {
    if (bytes.size() >= kRoutingTextBytes) break;
    bytes += tokenizer.bytes(token);
  }
  bytes.resize(std::min(bytes.size(), kRoutingTextBytes));
  // Blocks and limits cut where they do: what is left of a character there is no text.
  std::string text;
  for (std::string_view rest = bytes; !rest.empty();) {
    const std::size_t valid = utf8_valid_prefix(rest);
    text += rest.substr(0, valid);
    rest.remove_prefix(valid);
    if (!rest.empty()) rest.remove_prefix(utf8_step(rest).length);
  }
  return text;
}

}  // namespace

Status validate_routing(const GenerationRequest& request, const RunnerInfo& model) {
  if (!request.report_routing) return {};
  if (!model.tells_blocks) {
    return Status::invalid("routing", "routing is set; what computes here (" + model.device +
                                          ") does not tell which blocks it selects");
  }
  const AttentionSettings& attention = request.attention;
  for (const AttentionPolicy& policy : {attention.prefill, attention.decode}) {
    if (is_moba(policy) && policy.top_k > kMaxRoutingTopK) {
      return Status::invalid(
          "routing", "routing is set and top_k is " + std::to_string(policy.top_k) +
                         "; it is told for a top_k of at most " + std::to_string(kMaxRoutingTopK));
    }
  }
  return {};
}

RoutingCounter::RoutingCounter(const AttentionSettings& attention, const RunnerInfo& model)
    : model_(model), block_(counted_block(attention)) {
  full_layers_ = block_ > 0 ? attention.full_attention_last_layers : model.num_layers;
  const auto sparse = static_cast<std::size_t>(model.num_layers - full_layers_);
  lists_ = sparse * static_cast<std::size_t>(model.num_heads);
  max_columns_ = std::max<std::size_t>(1, kMaxRoutingCounts / std::max<std::size_t>(1, lists_));
  counts_.resize(lists_);
}

std::span<std::int32_t> RoutingCounter::ask(const AttentionPolicy& policy, std::int32_t position) {
  asked_.clear();
  if (lists_ == 0 || !is_moba(policy) || policy.block != block_) return {};
  if (tokens_ == 0) first_own_block_ = position / block_;
  last_own_block_ = position / block_;
  list_size_ = static_cast<std::size_t>(attended_blocks(policy, position));
  asked_.resize(static_cast<std::size_t>(model_.num_layers) *
                static_cast<std::size_t>(model_.num_heads) * list_size_);
  return asked_;
}

void RoutingCounter::count() {
  if (asked_.empty()) return;
  ++tokens_;
  const auto blocks = static_cast<std::size_t>(last_own_block_) + 1;
  if (attended_.size() < blocks) {
    attended_.resize(blocks);
    own_.resize(blocks);
  }
  for (std::size_t list = 0; list < lists_; ++list) {
    for (std::size_t i = 0; i < list_size_; ++i) add(list, asked_[list * list_size_ + i]);
  }
  own_[static_cast<std::size_t>(last_own_block_)] += static_cast<std::int64_t>(lists_);
  asked_.clear();
}

void RoutingCounter::add(std::size_t list, std::int32_t block) {
  ++attended_.at(static_cast<std::size_t>(block));
  while (static_cast<std::size_t>(block / column_blocks_) >= max_columns_) widen_columns();
  const auto column = static_cast<std::size_t>(block / column_blocks_);
  std::vector<std::uint32_t>& counts = counts_[list];
  if (counts.size() <= column) counts.resize(column + 1);
  ++counts[column];
}

void RoutingCounter::widen_columns() {
  column_blocks_ *= 2;
  for (std::vector<std::uint32_t>& counts : counts_) {
    for (std::size_t i = 0; i < counts.size(); ++i) {
      if (i % 2 == 0) {
        counts[i / 2] = counts[i];
      } else {
        counts[i / 2] += counts[i];
      }
    }
    counts.resize((counts.size() + 1) / 2);
  }
}

Routing RoutingCounter::result(std::span<const std::int32_t> tokens,
                               const Tokenizer& tokenizer) const {
  Routing routing;
  routing.tokens = tokens_;
  routing.block = block_;
  routing.blocks = tokens_ > 0 ? last_own_block_ + 1 : 0;
  routing.first_own_block = first_own_block_;
  routing.layers = model_.num_layers;
  routing.full_layers = full_layers_;
  routing.heads = model_.num_heads;
  routing.column_blocks = column_blocks_;
  routing.columns = (routing.blocks + column_blocks_ - 1) / column_blocks_;
  const auto columns = static_cast<std::size_t>(routing.columns);
  routing.counts.resize(lists_ * columns);
  for (std::size_t list = 0; list < lists_; ++list) {
    std::ranges::copy(counts_[list],
                      routing.counts.begin() + static_cast<std::ptrdiff_t>(list * columns));
  }

  std::vector<std::size_t> order(attended_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::erase_if(order, [&](std::size_t block) { return attended_[block] == 0; });
  const auto top = static_cast<std::ptrdiff_t>(std::min(order.size(), kRoutingTop));
  const auto chosen = [&](std::size_t block) { return attended_[block] - own_[block]; };
  std::partial_sort(order.begin(), order.begin() + top, order.end(),
                    [&](std::size_t a, std::size_t b) {
                      return chosen(a) != chosen(b) ? chosen(a) > chosen(b) : a < b;
                    });
  order.resize(static_cast<std::size_t>(top));
  for (const std::size_t block : order) {
    const std::size_t first = block * static_cast<std::size_t>(block_);
    const std::size_t count = std::min(tokens.size() - first, static_cast<std::size_t>(block_));
    routing.top.push_back({static_cast<std::int32_t>(block), static_cast<std::int32_t>(first),
                           static_cast<std::int32_t>(count), attended_[block], own_[block],
                           text_of(tokens.subspan(first, count), tokenizer)});
  }
  return routing;
}

}  // namespace mobius
