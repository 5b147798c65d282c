#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <variant>
#include <vector>

namespace mobius {

/// A full page can be found from now on. The same tokens under another attention are another page.
struct PageStored {
  std::uint64_t hash = 0;  ///< names the page and all before it; never that of two pages at a time
  std::optional<std::uint64_t> parent;  ///< the page before; none for a sequence's first
  std::vector<std::int32_t> tokens;     ///< the page's own
};

/// The page cannot be found any more.
struct PageRemoved {
  std::uint64_t hash = 0;
};

/// Changes of the prefix cache, in the order in which they came about. For those who choose among
/// servers by what each of them has computed already.
using CacheEvent = std::variant<PageStored, PageRemoved>;
using CacheEventSink = std::function<void(std::vector<CacheEvent>)>;

}  // namespace mobius
