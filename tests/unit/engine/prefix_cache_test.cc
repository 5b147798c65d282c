#include "engine/prefix_cache.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>
#include <vector>

#include "engine/sequence_pages.h"
#include "tests/unit/engine/support.h"

namespace mobius {
namespace {

constexpr std::int32_t kPage = 4;
const RowAttention kFull = RowAttention::of(AttentionPolicy::full(), 0);
const RowAttention kSparse = RowAttention::of(AttentionPolicy::moba(8, 2), 1);

std::vector<std::int32_t> counting(std::int32_t count, std::int32_t first = 0) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// A pool with a cache, and sequences that fill pages as a scheduler would let them.
struct Pool {
  explicit Pool(std::int32_t num_pages) : pages(num_pages), cache(pages, 42) {}

  std::unique_ptr<SequencePages> sequence(std::int32_t prompt_tokens,
                                          const RowAttention& prompt = kFull,
                                          const RowAttention& generated = kFull) {
    return std::make_unique<SequencePages>(pages, &cache, kPage, prompt_tokens, prompt, generated,
                                           true);
  }

  // Reuses, then "computes" the rest of the tokens. Returns the pages that were reused.
  std::int32_t fill(SequencePages& sequence, const std::vector<std::int32_t>& tokens) {
    const std::int32_t reused = sequence.reuse(tokens);
    const auto count = static_cast<std::int32_t>(tokens.size());
    EXPECT_TRUE(sequence.grow_to((count + kPage - 1) / kPage));
    sequence.index(tokens, count);
    EXPECT_EQ(cache.check_invariants(), "");
    return reused;
  }

  // One sequence that comes, computes and leaves.
  std::int32_t visit(const std::vector<std::int32_t>& tokens, const RowAttention& prompt = kFull,
                     const RowAttention& generated = kFull, std::int32_t prompt_tokens = -1) {
    const auto all = static_cast<std::int32_t>(tokens.size());
    const auto own = sequence(prompt_tokens < 0 ? all : prompt_tokens, prompt, generated);
    return fill(*own, tokens);
  }

  KvPages pages;
  PrefixCache cache;
};

TEST(PrefixCache, FindsFullPagesButLeavesATokenToCompute) {
  Pool pool(16);
  EXPECT_EQ(pool.visit(counting(13)), 0);
  EXPECT_EQ(pool.cache.size(), 3) << "the unfinished page is nobody's business";
  EXPECT_EQ(pool.pages.used(), 0);
  EXPECT_EQ(pool.pages.idle(), 3);
  EXPECT_EQ(pool.visit(counting(13)), 3);
  EXPECT_EQ(pool.visit(counting(12)), 2) << "its last token must be computed";
  EXPECT_EQ(pool.visit(counting(4)), 0);
  EXPECT_EQ(pool.visit(counting(5)), 1);
  EXPECT_EQ(pool.visit(counting(1)), 0);
  EXPECT_EQ(pool.cache.size(), 3);
}

TEST(PrefixCache, FindsNothingBehindADifference) {
  Pool pool(32);
  pool.visit(counting(16));
  auto other = counting(17);
  other[5] = 99;
  EXPECT_EQ(pool.visit(other), 1);
  // The same page of tokens at another place is another page.
  auto shifted = counting(12, 4);
  EXPECT_EQ(pool.visit(shifted), 0);
  auto behind_another = counting(4, 50);
  for (const std::int32_t token : counting(9, 4)) behind_another.push_back(token);
  EXPECT_EQ(pool.visit(behind_another), 0);
}

TEST(PrefixCache, PagesOfOtherAttentionAreNotFound) {
  Pool pool(64);
  const auto tokens = counting(17);
  pool.visit(tokens, kFull);
  EXPECT_EQ(pool.visit(tokens, kSparse), 0);
  EXPECT_EQ(pool.visit(tokens, kSparse), 4);
  EXPECT_EQ(pool.visit(tokens, RowAttention::of(AttentionPolicy::moba(8, 3), 1)), 0);
  EXPECT_EQ(pool.visit(tokens, RowAttention::of(AttentionPolicy::moba(16, 2), 1)), 0);
  EXPECT_EQ(pool.visit(tokens, RowAttention::of(AttentionPolicy::moba(8, 2), 2)), 0);
  EXPECT_EQ(pool.visit(tokens, kFull), 4);
}

TEST(PrefixCache, SettingsOfEqualEffectAreOne) {
  AttentionPolicy full = AttentionPolicy::full();
  full.block = 512;
  full.top_k = 3;
  EXPECT_EQ(RowAttention::of(full, 7), kFull);
}

TEST(PrefixCache, GeneratedRowsAreFoundUnderTheirOwnAttention) {
  const auto tokens = counting(17);
  {
    // Six tokens of prompt, then generated ones under the same attention: an answer becomes a part
    // of the next prompt.
    Pool pool(32);
    pool.visit(tokens, kFull, kFull, 6);
    EXPECT_EQ(pool.visit(tokens, kFull, kFull, 17), 4);
  }
  Pool pool(32);
  pool.visit(tokens, kSparse, kFull, 6);
  EXPECT_EQ(pool.visit(tokens, kSparse, kFull, 17), 1) << "the pages of the prompt alone";
  EXPECT_EQ(pool.visit(tokens, kSparse, kFull, 6), 4) << "the same sequence, after a preemption";
  EXPECT_EQ(pool.visit(tokens, kSparse, kFull, 7), 1) << "the second page has another row of each";
}

TEST(PrefixCache, EqualPagesThatBothComputedBecomeOne) {
  Pool pool(16);
  const auto tokens = counting(9);
  const auto a = pool.sequence(9);
  const auto b = pool.sequence(9);
  ASSERT_TRUE(a->grow_to(3));
  ASSERT_TRUE(b->grow_to(3));
  EXPECT_EQ(pool.pages.used(), 6);
  a->index(tokens, 5);
  b->index(tokens, 9);
  a->index(tokens, 9);
  EXPECT_EQ(pool.cache.check_invariants(), "");
  EXPECT_EQ(a->ids()[0], b->ids()[0]);
  EXPECT_EQ(a->ids()[1], b->ids()[1]);
  EXPECT_NE(a->ids()[2], b->ids()[2]) << "unfinished pages are never shared";
  EXPECT_EQ(pool.pages.used(), 4);
}

TEST(PrefixCache, EvictsTheTailOfWhatWasUsedLongestAgo) {
  Pool pool(12);
  const auto old = counting(16);
  const auto fresh = counting(16, 100);
  pool.visit(old);
  pool.visit(fresh);
  EXPECT_EQ(pool.pages.available(), 4);
  EXPECT_EQ(pool.cache.evict(1), 1);
  EXPECT_EQ(pool.cache.check_invariants(), "");
  auto longer = old;
  longer.push_back(1);
  EXPECT_EQ(pool.sequence(17)->reuse(longer), 3) << "only the last page went";
  // That was a use: now the other one is older.
  EXPECT_EQ(pool.cache.evict(4), 4);
  longer = fresh;
  longer.push_back(1);
  EXPECT_EQ(pool.sequence(17)->reuse(longer), 0);
  longer = old;
  EXPECT_EQ(pool.sequence(16)->reuse(longer), 3);
  EXPECT_EQ(pool.cache.evict(100), 3);
  EXPECT_EQ(pool.cache.size(), 0);
  EXPECT_EQ(pool.pages.available(), 12);
}

TEST(PrefixCache, ABranchGoesBeforeItsTrunk) {
  Pool pool(16);
  auto a = counting(12);
  auto b = a;
  b[9] = 99;
  pool.visit(a);
  pool.visit(b);  // shares two pages
  EXPECT_EQ(pool.cache.size(), 4);
  EXPECT_EQ(pool.cache.evict(1), 1);
  a.push_back(1);
  b.push_back(1);
  EXPECT_EQ(pool.sequence(13)->reuse(a), 2);
  EXPECT_EQ(pool.sequence(13)->reuse(b), 3);
}

TEST(PrefixCache, NeverEvictsAPageInUse) {
  Pool pool(8);
  const auto user = pool.sequence(9);
  pool.fill(*user, counting(9));
  pool.visit(counting(16, 50));
  EXPECT_EQ(pool.pages.available(), 1);
  EXPECT_EQ(pool.cache.evict(100), 4);
  EXPECT_EQ(pool.cache.size(), 2);
  const auto other = pool.sequence(40);
  EXPECT_FALSE(other->grow_to(6));
  EXPECT_EQ(other->size(), 0);
  EXPECT_TRUE(other->grow_to(5));
  EXPECT_EQ(pool.cache.check_invariants(), "");
}

TEST(PrefixCache, GrowingEvictsOnlyWhatIsMissing) {
  Pool pool(8);
  pool.visit(counting(16));
  const auto other = pool.sequence(40);
  EXPECT_TRUE(other->grow_to(4));
  EXPECT_EQ(pool.cache.size(), 4);
  EXPECT_TRUE(other->grow_to(6));
  EXPECT_EQ(pool.cache.size(), 2);
  EXPECT_FALSE(other->grow_to(9));
  EXPECT_EQ(other->size(), 6);
  EXPECT_EQ(pool.cache.size(), 2) << "nothing is evicted in vain";
}

TEST(PrefixCache, ACollisionIsAMissAndNeverAnAnswer) {
  KvPages pages(8);
  PrefixCache cache(pages, 1);
  PageList list(pages);
  ASSERT_TRUE(list.grow_to(2));
  const auto one = counting(kPage);
  const auto two = counting(kPage, 7);
  const PageContent a = PageContent::of(one, 0, kPage, kFull, kFull);
  const PageContent b = PageContent::of(two, 0, kPage, kFull, kFull);
  const PrefixCache::Node node = cache.insert(PrefixCache::kRoot, 5, a, list.ids()[0]);
  ASSERT_GE(node, 0);
  EXPECT_EQ(cache.find(PrefixCache::kRoot, 5, b), PrefixCache::kNone);
  EXPECT_EQ(cache.insert(PrefixCache::kRoot, 5, b, list.ids()[1]), PrefixCache::kNone);
  EXPECT_EQ(cache.find(PrefixCache::kRoot, 5, a), node);
  EXPECT_EQ(cache.find(node, 5, a), PrefixCache::kNone) << "equal tokens at another place";
  EXPECT_FALSE(pages.kept(list.ids()[1]));
  EXPECT_EQ(cache.check_invariants(), "");
}

TEST(PrefixCache, HashesDependOnKeyAndEverythingBefore) {
  KvPages pages(1);
  const PrefixCache one(pages, 1);
  const PrefixCache two(pages, 2);
  const auto tokens = counting(kPage);
  const PageContent content = PageContent::of(tokens, 0, kPage, kFull, kFull);
  EXPECT_NE(one.hash(0, content), two.hash(0, content));
  EXPECT_NE(one.hash(0, content), one.hash(1, content));
  EXPECT_NE(one.hash(0, content), one.hash(0, PageContent::of(tokens, 0, 2, kSparse, kFull)));
}

// Random sequences over few tokens, so that beginnings are shared, against a plain reference: what
// was filled and not evicted is found, page by page.
TEST(PrefixCache, RandomUseFindsWhatIsThereAndLeaksNothing) {
  std::int64_t reused = 0;
  for (std::uint32_t seed = 0; seed < 40 && !HasFailure(); ++seed) {
    std::mt19937 random(seed);
    Pool pool(40);
    // What each page holds, by all tokens up to its end.
    std::map<PageId, std::vector<std::int32_t>> content;
    struct Live {
      std::unique_ptr<SequencePages> pages;
      std::vector<std::int32_t> tokens;
    };
    std::vector<Live> live;
    for (int i = 0; i < 400 && !HasFailure(); ++i) {
      if (random() % 3 != 0 || live.empty()) {
        std::vector<std::int32_t> tokens(1 + random() % 40);
        for (std::size_t t = 0; t < tokens.size(); ++t) {
          tokens[t] = t % kPage == 0 ? static_cast<std::int32_t>(random() % 2) : 7;
        }
        const auto all = static_cast<std::int32_t>(tokens.size());
        auto pages = pool.sequence(all);
        const std::int32_t found = pages->reuse(tokens);
        reused += found;
        for (std::int32_t p = 0; p < found; ++p) {
          const std::vector<std::int32_t> path(tokens.begin(), tokens.begin() + (p + 1) * kPage);
          EXPECT_EQ(content.at(pages->ids()[static_cast<std::size_t>(p)]), path);
        }
        if (pages->grow_to((all + kPage - 1) / kPage)) {
          for (std::int32_t p = found; p < all / kPage; ++p) {
            content[pages->ids()[static_cast<std::size_t>(p)]] = {tokens.begin(),
                                                                  tokens.begin() + (p + 1) * kPage};
          }
          pages->index(tokens, all);
          live.push_back({std::move(pages), std::move(tokens)});
        }
      } else {
        live.erase(live.begin() + static_cast<std::ptrdiff_t>(random() % live.size()));
      }
      std::vector<const PageList*> lists;
      for (const Live& sequence : live) lists.push_back(&sequence.pages->list());
      ASSERT_EQ(pool.pages.check_invariants(lists), "");
      ASSERT_EQ(pool.cache.check_invariants(), "");
    }
    live.clear();
    EXPECT_EQ(pool.pages.used(), 0);
    const std::int32_t idle = pool.pages.idle();
    EXPECT_EQ(pool.cache.evict(100), idle);
    EXPECT_EQ(pool.pages.available(), pool.pages.total());
  }
  EXPECT_GT(reused, 1000) << "the sequences are too different";
}

TEST(PrefixCache, NotesWhatBecomesFindableAndWhatCeasesToBe) {
  Pool pool(3);
  pool.visit(counting(8));
  EXPECT_TRUE(pool.cache.take_events().empty()) << "nobody asked";
  pool.cache.record_events();
  pool.visit(counting(8));  // found
  EXPECT_TRUE(pool.cache.take_events().empty());

  pool.visit(counting(12));
  std::vector<CacheEvent> events = pool.cache.take_events();
  ASSERT_EQ(events.size(), 1U);
  const auto* stored = std::get_if<PageStored>(&events[0]);
  ASSERT_NE(stored, nullptr);
  EXPECT_EQ(stored->tokens, counting(4, 8));
  EXPECT_TRUE(stored->parent.has_value());
  const std::uint64_t tail = stored->hash;

  EXPECT_EQ(pool.cache.evict(1), 1);
  events = pool.cache.take_events();
  ASSERT_EQ(events.size(), 1U);
  const auto* removed = std::get_if<PageRemoved>(&events[0]);
  ASSERT_NE(removed, nullptr);
  EXPECT_EQ(removed->hash, tail) << "the tail goes first";
  EXPECT_TRUE(pool.cache.take_events().empty()) << "each is told once";
}

}  // namespace
}  // namespace mobius
