#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/attention.h"

namespace mobius {

class PageList;

/// Hands out the pages of one KvPool by id; their content is the backend's. Every page has a
/// reference count, the lists that hold it, and may besides be kept for reuse (prefix_cache.h). A
/// page with one holder that is not kept belongs to that sequence; others are shared and must not
/// be written any more. Only PageList can change counts, so a page is freed exactly once for each
/// time it was taken. Not thread-safe.
///
///   free -> used (in a list) -> free
///              |  ^
///              v  |
///             idle (kept, in no list) -> free
class KvPages {
 public:
  explicit KvPages(std::int32_t num_pages);
  ~KvPages();
  KvPages(const KvPages&) = delete;
  KvPages& operator=(const KvPages&) = delete;

  std::int32_t total() const { return static_cast<std::int32_t>(counts_.size()); }
  std::int32_t available() const { return static_cast<std::int32_t>(free_.size()); }
  /// Kept for reuse, in no list: these can become available.
  std::int32_t idle() const { return idle_; }
  /// In some list.
  std::int32_t used() const { return total() - available() - idle(); }
  /// How many lists hold the page.
  std::int32_t count(PageId page) const { return counts_[static_cast<std::size_t>(page)]; }
  bool kept(PageId page) const { return kept_[static_cast<std::size_t>(page)]; }

  /// Empty, or one line about the first thing that is wrong. `lists` are all that exist. For tests
  /// and debugging: O(pages).
  std::string check_invariants(std::span<const PageList* const> lists) const;

 private:
  friend class PageList;
  PageId take();
  void share(PageId page);
  void release(PageId page);

  friend class PrefixCache;
  void keep(PageId page);  // which a list holds
  void unkeep(PageId page);

  std::vector<std::int32_t> counts_;
  std::vector<bool> kept_;
  std::int32_t idle_ = 0;
  std::vector<PageId> free_;  // the last one is handed out next
};

/// Pages of one sequence in sequence order. Gives them back on destruction; `pages` must outlive
/// it.
class PageList {
 public:
  explicit PageList(KvPages& pages) : pages_(&pages) {}
  ~PageList() { clear(); }
  PageList(PageList&& other) noexcept;
  PageList& operator=(PageList&& other) noexcept;
  PageList(const PageList&) = delete;
  PageList& operator=(const PageList&) = delete;

  std::span<const PageId> ids() const { return ids_; }
  std::int32_t size() const { return static_cast<std::int32_t>(ids_.size()); }

  /// Appends free pages until there are `count`. False, and nothing changed, if there are too few.
  [[nodiscard]] bool grow_to(std::int32_t count);

  /// Appends a page that some list holds already, or that is kept; both hold it from now on.
  void share(PageId page);

  /// Gives the page at `index` back and holds this one, of equal content, in its place.
  void exchange(std::int32_t index, PageId page);

  /// Gives all pages back.
  void clear();

 private:
  KvPages* pages_;
  std::vector<PageId> ids_;
};

}  // namespace mobius
