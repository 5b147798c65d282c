#include "engine/kv_pages.h"

#include <cassert>
#include <utility>

namespace mobius {

KvPages::KvPages(std::int32_t num_pages)
    : counts_(static_cast<std::size_t>(num_pages), 0),
      kept_(static_cast<std::size_t>(num_pages), false) {
  free_.reserve(counts_.size());
  // Low ids first: a lightly used pool stays in a small part of its memory.
  for (PageId page = num_pages - 1; page >= 0; --page) free_.push_back(page);
}

KvPages::~KvPages() {
  assert(available() == total() && "a PageList or a PrefixCache outlives its KvPages");
}

PageId KvPages::take() {
  assert(!free_.empty());
  const PageId page = free_.back();
  free_.pop_back();
  assert(counts_[static_cast<std::size_t>(page)] == 0);
  counts_[static_cast<std::size_t>(page)] = 1;
  return page;
}

void KvPages::share(PageId page) {
  assert(page >= 0 && page < total() && (count(page) > 0 || kept(page)) &&
         "only a page in use or kept can be shared");
  if (counts_[static_cast<std::size_t>(page)]++ == 0) --idle_;
}

void KvPages::release(PageId page) {
  std::int32_t& count = counts_[static_cast<std::size_t>(page)];
  assert(count > 0);
  if (--count > 0) return;
  if (kept(page)) {
    ++idle_;
  } else {
    free_.push_back(page);
  }
}

void KvPages::keep(PageId page) {
  assert(count(page) > 0 && !kept(page));
  kept_[static_cast<std::size_t>(page)] = true;
}

void KvPages::unkeep(PageId page) {
  assert(kept(page));
  kept_[static_cast<std::size_t>(page)] = false;
  if (count(page) > 0) return;
  --idle_;
  free_.push_back(page);
}

std::string KvPages::check_invariants(std::span<const PageList* const> lists) const {
  std::vector<std::int32_t> held(counts_.size(), 0);
  for (const PageList* list : lists) {
    for (const PageId page : list->ids()) {
      if (page < 0 || page >= total()) return "page " + std::to_string(page) + " does not exist";
      ++held[static_cast<std::size_t>(page)];
    }
  }
  std::vector<bool> is_free(counts_.size(), false);
  for (const PageId page : free_) {
    if (is_free[static_cast<std::size_t>(page)]) {
      return "page " + std::to_string(page) + " is free twice";
    }
    is_free[static_cast<std::size_t>(page)] = true;
  }
  std::int32_t idle = 0;
  for (PageId page = 0; page < total(); ++page) {
    const auto index = static_cast<std::size_t>(page);
    if (counts_[index] != held[index]) {
      return "page " + std::to_string(page) + " has count " + std::to_string(counts_[index]) +
             " but " + std::to_string(held[index]) + " holders";
    }
    if (is_free[index] != (counts_[index] == 0 && !kept_[index])) {
      return "page " + std::to_string(page) + " has count " + std::to_string(counts_[index]) +
             (kept_[index] ? " and is kept" : "") +
             (is_free[index] ? " but is free" : " but is not free");
    }
    if (counts_[index] == 0 && kept_[index]) ++idle;
  }
  if (idle != idle_) {
    return std::to_string(idle) + " pages are idle but counted as " + std::to_string(idle_);
  }
  return {};
}

PageList::PageList(PageList&& other) noexcept
    : pages_(other.pages_), ids_(std::exchange(other.ids_, {})) {}

PageList& PageList::operator=(PageList&& other) noexcept {
  if (this != &other) {
    clear();
    pages_ = other.pages_;
    ids_ = std::exchange(other.ids_, {});
  }
  return *this;
}

bool PageList::grow_to(std::int32_t count) {
  if (count - size() > pages_->available()) return false;
  while (size() < count) {
    ids_.push_back(-1);  // may throw, and must do so before a page is taken
    ids_.back() = pages_->take();
  }
  return true;
}

void PageList::share(PageId page) {
  ids_.push_back(page);
  pages_->share(page);
}

void PageList::exchange(std::int32_t index, PageId page) {
  PageId& held = ids_[static_cast<std::size_t>(index)];
  pages_->share(page);
  pages_->release(std::exchange(held, page));
}

void PageList::clear() {
  // Backwards, so that the pages are handed out again in the same order.
  for (; !ids_.empty(); ids_.pop_back()) pages_->release(ids_.back());
}

}  // namespace mobius
